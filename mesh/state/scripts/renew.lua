-- Renews a lease; with a body, publishes new facts too.
-- Returns 1, or 0 when the lease has lapsed and was swept, or -1 when a newer process holds the name.
-- KEYS leases member events   ARGV name ttl_ms fence body kept
local held = redis.call('HGET', KEYS[2], 'fence')
if not held then return 0 end
if held ~= ARGV[3] then return -1 end
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2], ARGV[1])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[2], 'body', ARGV[4])
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'kind', 'facts', 'id', ARGV[1], 'fence', ARGV[3], 'body', ARGV[4])
end
return 1

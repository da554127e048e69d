-- Removes members whose lease has lapsed, with one event each; any number of sweepers may run.
-- Returns the milliseconds until the next lease ends, or -1 when there is none.
-- KEYS leases events   ARGV member_prefix kept
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  local fence = redis.call('HGET', ARGV[1] .. name, 'fence') or '0'
  redis.call('ZREM', KEYS[1], name)
  redis.call('DEL', ARGV[1] .. name)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'kind', 'lost', 'id', name, 'fence', fence)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #first == 0 then return -1 end
return math.max(0, first[2] - now)

-- Takes or takes over a member's lease under a new fencing token, which it returns.
-- KEYS leases fence member events   ARGV name ttl_ms body kept
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local fence = math.max(redis.call('INCR', KEYS[2]), now)  -- grows even when Redis has lost its data
redis.call('SET', KEYS[2], fence)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], 'fence', fence, 'body', ARGV[3])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[4], '*', 'kind', 'joined', 'id', ARGV[1], 'fence', fence, 'body', ARGV[3])
return fence

-- Takes or renews the leadership. Returns {holder, fence, ms left}.
-- KEYS leader fence events   ARGV id address ttl_ms kept
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local was = redis.call('HMGET', KEYS[1], 'holder', 'address', 'fence', 'until')
local mine = was[1] == ARGV[1] and was[2] == ARGV[2]
if was[1] and not mine and tonumber(was[4]) > now then
  return {was[1], tonumber(was[3]), tonumber(was[4]) - now}
end
local fence = was[3]
if not mine or tonumber(was[4]) <= now then
  fence = redis.call('INCR', KEYS[2])
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'kind', 'leader', 'id', ARGV[1], 'fence', fence, 'body', ARGV[2])
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'address', ARGV[2], 'fence', fence, 'until', now + ARGV[3])
return {ARGV[1], tonumber(fence), tonumber(ARGV[3])}

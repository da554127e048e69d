-- Takes the leadership (fence 0), or renews the one held under that fence. Returns {holder, fence, ms left}.
-- A process that comes back under its old name takes over at once; its former self then fails to renew.
-- KEYS leader fence events   ARGV id address ttl_ms fence kept
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local was = redis.call('HMGET', KEYS[1], 'holder', 'fence', 'until')
local renews = ARGV[4] ~= '0'
if renews and was[2] ~= ARGV[4] then
  return {was[1] or '', tonumber(was[2] or '0'), 0}
end
if not renews and was[1] and was[1] ~= ARGV[1] and tonumber(was[3]) > now then
  return {was[1], tonumber(was[2]), tonumber(was[3]) - now}
end
local fence = ARGV[4]
if not renews then
  fence = math.max(redis.call('INCR', KEYS[2]), now)  -- as in join.lua
  redis.call('SET', KEYS[2], fence)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'kind', 'leader', 'id', ARGV[1], 'fence', fence, 'body', ARGV[2])
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'address', ARGV[2], 'fence', fence, 'until', now + ARGV[3])
return {ARGV[1], tonumber(fence), tonumber(ARGV[3])}

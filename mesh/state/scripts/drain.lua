-- Says that a worker or a node is to become empty, or (kind 'undrain') no longer. Returns 1, or 0 when it was so already.
-- KEYS drains events   ARGV kind name kept
local change = ARGV[1] == 'drain' and 'SADD' or 'SREM'
if redis.call(change, KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'kind', ARGV[1], 'id', ARGV[2], 'fence', 0)
return 1

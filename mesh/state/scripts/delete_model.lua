-- Removes a catalogue entry; the revision stays, so that a later model of the same name goes on counting.
-- Returns 1, 0 when there is none, or minus the current revision minus 1 when it is not the expected one (-1: any).
-- KEYS models revisions events   ARGV name expected kept
if not redis.call('HGET', KEYS[1], ARGV[1]) then return 0 end
local current = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if tonumber(ARGV[2]) >= 0 and tonumber(ARGV[2]) ~= current then return -current - 1 end
redis.call('HDEL', KEYS[1], ARGV[1])
local revision = redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'kind', 'deleted', 'id', ARGV[1], 'fence', revision)
return 1

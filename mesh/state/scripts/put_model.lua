-- Writes a catalogue entry when its revision is the expected one (0: must not exist).
-- Returns the new revision, or minus the current one minus 1 when it differs.
-- KEYS models revisions events deployments   ARGV name expected body kept deployments_kept
local current = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if not redis.call('HGET', KEYS[1], ARGV[1]) then
  if tonumber(ARGV[2]) ~= 0 then return -1 end
elseif tonumber(ARGV[2]) ~= current then
  return -current - 1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
local revision = redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'kind', 'model', 'id', ARGV[1], 'fence', revision, 'body', ARGV[3])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[5], '*', 'body', ARGV[3])
return revision

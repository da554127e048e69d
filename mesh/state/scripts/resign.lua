-- Ends a leadership early; its event tells a standby that it need not wait for the lease.
-- KEYS leader events   ARGV fence kept
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
local holder = redis.call('HGET', KEYS[1], 'holder')
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'kind', 'resigned', 'id', holder, 'fence', ARGV[1])
return 1

-- Ends a leadership early, so that a standby need not wait for the lease.
-- KEYS leader   ARGV fence
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])

-- Gives a lease back, unless a newer process holds the name.
-- KEYS leases member events   ARGV name fence kept
if redis.call('HGET', KEYS[2], 'fence') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'kind', 'left', 'id', ARGV[1], 'fence', ARGV[2])
return 1

-- Records a load before it is commanded, for whoever leads next. Returns 1, or 0 when another leads.
-- KEYS leader reservations   ARGV fence name body
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1

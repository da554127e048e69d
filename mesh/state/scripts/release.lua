-- Strikes loads out that have ended, unless another leads: then they are its business. Returns 1, or 0 when another does.
-- KEYS leader reservations   ARGV fence name...
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
for n = 2, #ARGV do redis.call('HDEL', KEYS[2], ARGV[n]) end
return 1

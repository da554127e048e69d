-- Writes down what a leader has learnt, and strikes out what is to be forgotten. Returns 1, or 0 when another leads.
-- KEYS leader learnt   ARGV fence, then field and body in turn; an empty body strikes out
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
return 1

-- The keys that do not expire, and the entries of their lists. A service's own keys come and go, so only those of the seed count.
local keys, entries = 0, 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  if redis.call('TTL', key) == -1 then
    keys = keys + 1
    if redis.call('TYPE', key).ok == 'list' then entries = entries + redis.call('LLEN', key) end
  end
end
return {keys, entries}

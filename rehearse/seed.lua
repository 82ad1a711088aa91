-- What a rehearsal puts into Redis: keys, and a queue of jobs that no worker reads.
for i = 1, 200 do redis.call('SET', 'rehearsal:quote:' .. i, i) end
for i = 1, 50 do redis.call('RPUSH', 'rehearsal:jobs', 'job ' .. i) end

"""What happens in one step inside Redis. A lane is a stream with one consumer group; what is acknowledged is deleted.

Ids are packed into one string per lane, because redis-py reads one string far faster than a nest of arrays.
"""

from __future__ import annotations

PACK = """
local function pack(entries)
  local packed = {}
  for _, entry in ipairs(entries) do
    if entry and entry[2] then
      local id = ''
      for i = 1, #entry[2], 2 do
        if entry[2][i] == 'id' and string.match(entry[2][i + 1], '^[%x-]+$') then id = entry[2][i + 1] end
      end
      packed[#packed + 1] = entry[1] .. ' ' .. id
    end
  end
  return table.concat(packed, ',')
end
"""

RING = """
-- KEYS: stream, set of lanes. ARGV: most that may wait, lane, job ids. Refuses the newest of what is too much.
redis.call('SADD', KEYS[2], ARGV[2])
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local last = math.min(#ARGV, room + 2)
for i = 3, last do redis.call('XADD', KEYS[1], '*', 'id', ARGV[i]) end
return #ARGV - math.max(2, last)
"""

TAKE = (
    PACK
    + """
-- KEYS: streams. ARGV: group, consumer, how many of each stream. Never waits.
local found = {}
for i, key in ipairs(KEYS) do
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[i + 2], 'STREAMS', key, '>')
  found[i] = answer and pack(answer[1][2]) or ''
end
return found
"""
)

ACK = """
-- KEYS: stream. ARGV: group, entries.
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
return redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
"""

GIVE_BACK = """
-- KEYS: stream. ARGV: group, entries. Streams know no "not mine": the entry is put in anew, for whoever asks.
for i = 2, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if entry and redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
return #ARGV - 1
"""

RECLAIM = (
    PACK
    + """
-- KEYS: streams. ARGV: group, consumer, idle ms of what is claimed, idle ms of consumers that are forgotten, how many of each stream.
local claimed = {}
for i, key in ipairs(KEYS) do
  claimed[i] = pack(redis.call('XAUTOCLAIM', key, ARGV[1], ARGV[2], ARGV[3], '0-0', 'COUNT', ARGV[i + 4])[2])
  for _, found in ipairs(redis.call('XINFO', 'CONSUMERS', key, ARGV[1])) do
    local consumer = {}
    for j = 1, #found, 2 do consumer[found[j]] = found[j + 1] end
    if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[4]) then
      redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], consumer.name)
    end
  end
end
return claimed
"""
)

LEAVE = """
-- KEYS: streams. ARGV: group, consumer. One that still owes answers is forgotten later, by RECLAIM.
for _, key in ipairs(KEYS) do
  local found = redis.pcall('XPENDING', key, ARGV[1], '-', '+', 1, ARGV[2])
  if not found.err and #found == 0 then redis.pcall('XGROUP', 'DELCONSUMER', key, ARGV[1], ARGV[2]) end
end
return #KEYS
"""

COUNT = """
-- KEYS: streams. ARGV: group. Of each: what waits, what is in somebody's hands, what of that not for the first time, its bytes.
local found = {}
for i, key in ipairs(KEYS) do
  local held, again = 0, 0
  local summary = redis.pcall('XPENDING', key, ARGV[1])
  if not summary.err and summary[1] > 0 then
    held = summary[1]
    for _, entry in ipairs(redis.call('XPENDING', key, ARGV[1], '-', '+', 1000)) do
      if entry[4] > 1 then again = again + 1 end
    end
  end
  local bytes = redis.pcall('MEMORY', 'USAGE', key)
  found[i] = {math.max(0, redis.call('XLEN', key) - held), held, again, type(bytes) == 'number' and bytes or 0}
end
return found
"""

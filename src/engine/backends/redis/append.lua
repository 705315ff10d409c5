-- Keeps a message, and publishes it with its position. Gives its offset.
--
-- Further ARGV: the messages that are kept at most; their age in milliseconds; the command that
-- publishes; the channel; the envelope.

local size, age = ARGV[3], tonumber(ARGV[4])
offset = redis.call('HINCRBY', NUMBERING, 'offset', 1)
-- An identifier is the offset and the time.
local id = string.format('%.0f-%.0f', offset, now)
redis.call('XADD', MESSAGES, 'MAXLEN', '~', size, id, '', ARGV[7])
-- Each message up to the mark is older than that: none stays for more than twice its age.
if now - marked_at >= age then
    redis.call('XTRIM', MESSAGES, 'MINID', string.format('%.0f', mark + 1))
    redis.call('HSET', NUMBERING, 'mark', offset, 'marked_at', now)
end
redis.call('PEXPIRE', MESSAGES, string.format('%.0f', age))
redis.call('PEXPIRE', NUMBERING, string.format('%.0f', math.max(DAY_MS, age)))
redis.call(ARGV[5], ARGV[6], string.format('\1history %s-%.0f ', epoch, offset) .. ARGV[7])
return offset

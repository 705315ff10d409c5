-- The numbering of a group, which begins anew on a server that may have lost its newest messages.
--
-- KEYS: the numbering, a hash; the messages, a stream.
-- ARGV: the epoch of a new numbering; the name of this run of the server, empty if it is not known.

local NUMBERING, MESSAGES = KEYS[1], KEYS[2]
-- For so long, at least, a group that is not used keeps its numbering.
local DAY_MS = 24 * 60 * 60 * 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', NUMBERING, 'epoch', 'run', 'offset', 'mark', 'marked_at')
local epoch, offset = found[1], tonumber(found[3] or 0)
local mark, marked_at = tonumber(found[4] or 0), tonumber(found[5] or now)
if not epoch or (ARGV[2] ~= '' and found[2] ~= ARGV[2]) then
    epoch, offset, mark, marked_at = ARGV[1], 0, 0, now
    redis.call('DEL', NUMBERING, MESSAGES)
    redis.call('HSET', NUMBERING, 'epoch', epoch, 'run', ARGV[2], 'offset', 0, 'marked_at', now)
end

-- The numbering of a group, which begins anew on a server that may have lost its newest messages,
-- and where another user of the server has spoilt the keys: else the group would be of no use any more.
--
-- KEYS: the numbering, a hash; the messages, a stream. A node of a cluster that is getting a slot runs no
-- script for several keys unless it has all of them: there the second one is left out.
-- ARGV: the epoch of a new numbering; the name of this run of the server, empty if it is not known. Behind a
-- comma that of the node from which the keys may have come as they were, since this one is getting the slot.

local NUMBERING = KEYS[1]
local MESSAGES = KEYS[2] or string.gsub(NUMBERING, 'numbering$', 'messages')
local run, former = string.match(ARGV[2], '^([^,]*),?(.*)$')
-- For so long, at least, a group that is not used keeps its numbering.
local DAY_MS = 24 * 60 * 60 * 1000
-- Numbers up to it are exact.
local LARGEST = 2 ^ 53

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, offset, mark, marked_at

local function begin()
    epoch, offset, mark, marked_at = ARGV[1], 0, 0, now
    redis.call('DEL', NUMBERING)
    redis.call('DEL', MESSAGES)
    redis.call('HSET', NUMBERING, 'epoch', epoch, 'run', run, 'offset', 0, 'marked_at', now)
end

-- The number that a text is; nil for any other text.
local function whole(text)
    local number = string.match(text, '^%d+$') and tonumber(text)
    return number and number < LARGEST and number or nil
end

-- Whether a reply says that a key has another type, or that its stream takes no further message.
local function is_spoilt(reply)
    local failure = type(reply) == 'table' and reply.err
    return failure
        and (string.find(failure, 'WRONGTYPE') or string.find(failure, 'ID specified in XADD')
            or string.find(failure, 'exhausted the last possible ID')) ~= nil
end

local found = redis.pcall('HMGET', NUMBERING, 'epoch', 'run', 'offset', 'mark', 'marked_at')
if is_spoilt(found) then
    begin()
elseif found.err then
    return found
else
    epoch, offset = found[1], whole(found[3] or '0')
    mark, marked_at = whole(found[4] or '0'), whole(found[5] or string.format('%.0f', now))
    if
        not (epoch and offset and mark and marked_at)
        or not string.match(epoch, '^%x+$') or #epoch ~= 16 or mark > offset
        or (run ~= '' and found[2] ~= run and (former == '' or found[2] ~= former))
    then
        begin()
    elseif former ~= '' and found[2] == former then
        redis.call('HSET', NUMBERING, 'run', run)
    end
end

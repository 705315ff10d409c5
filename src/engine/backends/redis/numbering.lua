-- The numbering of a group, which begins anew on a server that may have lost its newest messages,
-- and where another user of the server has spoilt the keys: else the group would be of no use any more.
--
-- KEYS: the numbering, a hash; the messages, a stream. A node of a cluster that is getting a slot runs no
-- script for several keys unless it has all of them: there the second one is left out.
-- ARGV: the epoch of a new numbering; the name of this run of the server, empty if it is not known: its
-- `run_id`, and behind a colon its `master_replid`, another one after each time as a replica. Behind a comma
-- that of the node from which the keys may have come as they were, since this one is getting the slot.

local NUMBERING = KEYS[1]
local MESSAGES = KEYS[2] or string.gsub(NUMBERING, 'numbering$', 'messages')
local run, replication, former, former_replication =
    string.match(ARGV[2] .. ',', '^([^:,]*):?([^,]*),([^:,]*):?([^,]*)')
-- For so long, at least, a group that is not used keeps its numbering.
local DAY_MS = 24 * 60 * 60 * 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, offset, mark, marked_at

-- Functions get what they need: a variable that they share costs a part of a microsecond in each call.
local function begin(run, replication, messages, now)
    redis.call('DEL', KEYS[1])
    redis.call('DEL', messages)
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run', run, 'replication', replication, 'offset', 0, 'marked_at', now)
    return ARGV[1], 0, 0, now
end

-- Whether a numbering is of a run. One of version 0.2.0 has no replication, and not each client may ask for it.
local function is_of(found, run, replication)
    local own = found[6] or ''
    return found[2] == run and (own == replication or own == '' or replication == '')
end

-- The whole number that a text is; nil for any other text.
local function whole(text)
    local number = tonumber(text)
    -- Numbers up to 2 ^ 53 are exact.
    return number and number >= 0 and number < 2 ^ 53 and number % 1 == 0 and number or nil
end

-- Whether a reply says that a key has another type or a wrong number, or that its stream takes no
-- further message.
local function is_spoilt(reply)
    local failure = type(reply) == 'table' and reply.err
    return failure
        and (string.find(failure, 'WRONGTYPE') or string.find(failure, 'not an integer')
            or string.find(failure, 'ID specified in XADD')
            or string.find(failure, 'exhausted the last possible ID')) ~= nil
end

local found = redis.pcall('HMGET', NUMBERING, 'epoch', 'run', 'offset', 'mark', 'marked_at', 'replication')
if is_spoilt(found) then
    epoch, offset, mark, marked_at = begin(run, replication, MESSAGES, now)
elseif found.err then
    return found
else
    epoch, offset = found[1], whole(found[3] or 0)
    mark, marked_at = whole(found[4] or 0), whole(found[5] or now)
    if run ~= '' and not is_of(found, run, replication) then
        -- A client asks for the name now and then: it may be an earlier one.
        local info = redis.pcall('INFO', 'replication')
        replication = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or replication
    end
    local was_elsewhere = former ~= '' and is_of(found, former, former_replication)
    if
        not (epoch and offset and mark and marked_at)
        or #epoch ~= 16 or string.find(epoch, '%X') or mark > offset
        or (run ~= '' and not is_of(found, run, replication) and not was_elsewhere)
    then
        epoch, offset, mark, marked_at = begin(run, replication, MESSAGES, now)
    elseif was_elsewhere or (replication ~= '' and (found[6] or '') == '') then
        redis.call('HSET', NUMBERING, 'run', run, 'replication', replication)
    end
end

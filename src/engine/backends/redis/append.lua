-- Keeps messages, and publishes each with its position. Gives the offset of the last one. Without a
-- command that publishes it gives what would be published last: the subscriptions are at another node.
--
-- Further ARGV: the messages that are kept at most; their age in milliseconds; the command that
-- publishes; the channel; the envelopes, one or more.

local ENVELOPES = 7
local size, age, count = ARGV[3], tonumber(ARGV[4]), #ARGV - ENVELOPES + 1
local is_due = offset == 0 or now - marked_at >= age or now < marked_at

-- The refusal of a command for which the user has no right. Redis 6.2 gives none before the command runs.
local function refusal(...)
    return redis.acl_check_cmd and not redis.acl_check_cmd(...) and redis.pcall(...)
end

-- Before anything is kept: a message whose sender gets an error is to reach nobody.
local before, failure = nil, ARGV[5] ~= '' and refusal(ARGV[5], ARGV[6], '')
if is_due then
    failure = failure
        or refusal('XTRIM', MESSAGES, 'MINID', 0)
        or refusal('HSET', NUMBERING, 'mark', 0)
        or refusal('PEXPIRE', MESSAGES, 1)
end
if failure then
    return failure
end

for _ = 1, 2 do
    is_due = is_due or offset == 0
    before = redis.pcall('HINCRBY', NUMBERING, 'offset', count)
    failure = type(before) == 'table' and before
    if not failure then
        before = before - count
        for i = 1, count do
            -- An identifier is the offset and the time.
            local id = string.format('%.0f-%.0f', before + i, now)
            local envelope = ARGV[ENVELOPES + i - 1]
            local added = redis.pcall('XADD', MESSAGES, 'NOMKSTREAM', 'MAXLEN', '~', size, id, '', envelope)
            if not added then
                -- The first message of a stream.
                added = redis.pcall('XADD', MESSAGES, id, '', envelope)
                is_due = true
            end
            if type(added) == 'table' and added.err then
                failure = added
                redis.pcall('HINCRBY', NUMBERING, 'offset', -count)
                break
            end
        end
    end
    if not is_spoilt(failure) then
        break
    end
    epoch, offset, mark, marked_at = begin(run, replication, MESSAGES, now)
end
if failure then
    return failure
end
offset = before + count
-- Each message up to the mark is older than that: none stays for more than twice its age.
if now - marked_at >= age then
    redis.call('XTRIM', MESSAGES, 'MINID', string.format('%.0f', mark + 1))
end
-- The clock of the server may go back.
if now - marked_at >= age or now < marked_at then
    redis.call('HSET', NUMBERING, 'mark', offset, 'marked_at', now)
    is_due = true
end
if is_due then
    -- Enough until it is due again, for what is kept then, too.
    redis.call('PEXPIRE', MESSAGES, string.format('%.0f', 2 * age))
    redis.call('PEXPIRE', NUMBERING, string.format('%.0f', math.max(DAY_MS, age) + age))
end
for i = 1, count do
    local announcement = string.format('\1history %s-%.0f ', epoch, before + i) .. ARGV[ENVELOPES + i - 1]
    if ARGV[5] ~= '' then
        redis.call(ARGV[5], ARGV[6], announcement)
    elseif i == count then
        return announcement
    end
end
return offset

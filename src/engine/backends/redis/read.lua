-- Gives the epoch, the newest offset, and messages, oldest first: an identifier and an envelope
-- each.
--
-- Further ARGV: the position behind which they are, as an epoch and an offset; how many are wanted
-- at most, and their age in milliseconds; the bytes after which the rest is left for another call.

local AT_ONCE = 16
local size, oldest, most = tonumber(ARGV[5]), now - tonumber(ARGV[6]), tonumber(ARGV[7])
local after = tonumber(ARGV[4])
if ARGV[3] ~= epoch or after > offset then
    after = 0
end
after = math.max(after, offset - size)
local rows, bytes = {}, 0
while after < offset and bytes < most do
    local from = string.format('%.0f', after + 1)
    local part = redis.pcall('XRANGE', MESSAGES, from, '+', 'COUNT', AT_ONCE)
    if is_spoilt(part) then
        epoch, offset, mark, marked_at = begin(run, replication, MESSAGES, now)
        break
    elseif part.err then
        return part
    elseif #part == 0 then
        break
    end
    for _, entry in ipairs(part) do
        local id, fields = entry[1], entry[2]
        local number, sent_at = string.match(id, '^(%d+)-(%d+)$')
        after = tonumber(number)
        if after > offset then
            -- Another user of the server has written it.
            break
        end
        -- The clock may go back: behind the first one there is no gap.
        if #rows > 0 or tonumber(sent_at) >= oldest then
            rows[#rows + 1] = id
            rows[#rows + 1] = fields[2]
            bytes = bytes + #fields[2]
        end
        if bytes >= most then
            break
        end
    end
end
if redis.call('PTTL', NUMBERING) < DAY_MS then
    redis.call('PEXPIRE', NUMBERING, DAY_MS)
end
return {epoch, offset, rows}

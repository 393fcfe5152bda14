-- GCRA on the clock of Redis. The value of KEYS[1] is the time at which the
-- bucket will be full, in microseconds since 2020, which leaves 53-bit numbers
-- a thirty-second of a microsecond.
--
-- ARGV: take or refund, n, interval, burst, longest wait, when what is refunded
-- would be forgotten (all times in microseconds). Returns: ok, wait (-1: never),
-- limit, remaining, reset, now.
local epoch = 1577836800
local t = redis.call('TIME')
local now = (tonumber(t[1]) - epoch) * 1000000 + tonumber(t[2])
local n, interval = tonumber(ARGV[2]), tonumber(ARGV[3])
local burst, patience = tonumber(ARGV[4]), tonumber(ARGV[5])

local full = tonumber(redis.call('GET', KEYS[1]) or '0')
local room, cost = burst * interval, n * interval
local most = now + room + patience
local late = full > most
if late then
	-- No take goes so far: the clock has stepped back, or the law was larger. All is used.
	full = most
end

local function keep(at)
	if at > now then
		redis.call('SET', KEYS[1], string.format('%.17g', at), 'PX', math.ceil((at - now) / 1000) + 1)
	else
		redis.call('DEL', KEYS[1])
	end
end

if ARGV[1] == 'refund' then
	if full > 0 then
		keep(full - math.min(cost, math.max(0, tonumber(ARGV[6]) - now)))
	end
	return {1, 0, burst, 0, 0, now}
end

local used = math.max(0, full - now)
local ok, wait = 1, 0
if n > burst then
	ok, wait = 0, -1
elseif used > room + patience - cost then
	ok, wait = 0, math.ceil(used - (room + patience - cost))
	if late then
		keep(full)
	end
else
	used = used + cost
	if n > 0 then
		wait = math.max(0, math.ceil(used - room))
		keep(now + used)
	end
end
return {ok, wait, burst, math.floor(math.max(0, room - used) / interval), math.ceil(used), now}

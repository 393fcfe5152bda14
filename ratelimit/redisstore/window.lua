-- The sliding window counter on the clock of Redis. The value of KEYS[1] is
-- "number:last:current": which window is current, and the counts of the one
-- before it and of itself.
--
-- ARGV: take or refund, n, length of a window, limit, whether refusals count,
-- when what is refunded was taken (all times in microseconds). Returns: ok,
-- wait (-1: never), limit, remaining, reset, now.
local epoch = 1577836800
local t = redis.call('TIME')
local now = (tonumber(t[1]) - epoch) * 1000000 + tonumber(t[2])
local n, per = tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, countRefused, taken = tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])

local number = math.floor(now / per)
local elapsed = now - number * per
local last, current = 0, 0
local value = redis.call('GET', KEYS[1])
if value then
	local a, b, c = string.match(value, '^(%d+):(%d+):(%d+)$')
	a, b, c = tonumber(a), tonumber(b), tonumber(c)
	if a == number then
		last, current = b, c
	elseif a == number - 1 then
		last = c
	elseif a > number and a - number <= math.max(1, math.min(60000000 / per, 512)) then
		-- The clock has stepped back: the latest window stands until it catches up.
		number, elapsed, last, current = a, 0, b, c
	end
end

local function keep()
	local left = 0
	if current > 0 then
		left = 2 * per - elapsed
	elseif last > 0 then
		left = per - elapsed
	end
	if left > 0 then
		redis.call('SET', KEYS[1], string.format('%d:%d:%d', number, last, current), 'PX', math.ceil(left / 1000) + 1)
	else
		redis.call('DEL', KEYS[1])
	end
	return left
end

if ARGV[1] == 'refund' then
	local window = math.floor(taken / per)
	if window == number then
		current = math.max(0, current - n)
	elseif window == number - 1 then
		last = math.max(0, last - n)
	end
	keep()
	return {1, 0, limit, 0, 0, now}
end

local seen = current + math.ceil(last * (per - elapsed) / per)
local ok, wait, left = 1, 0, 0
if n == 0 or n <= limit - seen then
	current = current + n
	seen = seen + n
else
	ok = 0
	if countRefused then
		current = math.min(current + n, 4194303)
		seen = limit
	end
	local room = limit - current - n
	if n > limit then
		wait = -1
	elseif room >= 0 then
		wait = per - elapsed - math.floor(math.min(per, room * per / math.max(1, last)))
	else
		wait = per - elapsed + per - math.floor(math.min(per, (limit - n) * per / math.max(1, current)))
	end
end
if n > 0 and (ok == 1 or countRefused) then
	left = keep()
elseif current > 0 then
	left = 2 * per - elapsed
elseif last > 0 then
	left = per - elapsed
end
return {ok, math.ceil(wait), limit, math.max(0, limit - seen), math.ceil(left), now}

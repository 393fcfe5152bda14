-- Returns from the hash KEYS[1] what is no older than ARGV[1] milliseconds: servers and
-- what was found of each. What is older is deleted, and so is what a clock that has stepped
-- back since would keep.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local list, fresh = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #list, 2 do
	local at, text = string.match(list[i + 1], '^(%d+) (.*)$')
	if at and math.abs(now - tonumber(at)) <= tonumber(ARGV[1]) then
		fresh[#fresh + 1], fresh[#fresh + 2] = list[i], text
	else
		redis.call('HDEL', KEYS[1], list[i])
	end
end
return fresh

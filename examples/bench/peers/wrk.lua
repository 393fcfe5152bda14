-- wrk -s wrk.lua URL -- N: asks for /r0/ to /r(N-1)/ in turn.
local requests, n, i = {}, 0, 0

function init(args)
	n = tonumber(args[1])
	for k = 1, n do
		requests[k] = wrk.format("GET", "/r" .. (k - 1) .. "/")
	end
end

function request()
	i = i % n + 1
	return requests[i]
end

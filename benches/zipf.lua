-- Requests for wrk over many paths, the n-th of them asked for in proportion to 1/n: a few are hot, most are rare.
--   wrk -s zipf.lua URL -- SEED PREFIX KEYS
-- The same seed gives the same requests to whatever is measured.
local sums, prefix, keys, rest = {}, "", 0, ""

function init(args)
    math.randomseed(tonumber(args[1]))
    prefix, keys = args[2], tonumber(args[3])
    local sum = 0
    for key = 1, keys do
        sum = sum + 1 / key
        sums[key] = sum
    end
    rest = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
end

function request()
    local wanted = math.random() * sums[keys]
    local low, high = 1, keys
    while low < high do
        local middle = math.floor((low + high) / 2)
        if sums[middle] < wanted then low = middle + 1 else high = middle end
    end
    return "GET " .. prefix .. low .. rest
end

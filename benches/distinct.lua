-- Requests for wrk that are all for different paths, /KIB/NUMBER with 1 to 4 KiB; it ends after so many of them.
--   wrk -t 1 -s distinct.lua URL -- COUNT
local count, sent, answered, refused, rest = 0, 0, 0, 0, ""

function init(args)
    count = tonumber(args[1])
    rest = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
end

function request()
    sent = sent + 1
    return "GET /" .. (sent % 4 + 1) .. "/" .. sent .. rest
end

function response(status)
    answered = answered + 1
    if status ~= 200 then refused = refused + 1 end
    if answered < count then return end
    -- Its own way to stop a thread would still wait for the end of the time it was given.
    print(answered .. " requests in all")
    if refused > 0 then print("Non-2xx: " .. refused) end
    io.stdout:flush()
    os.exit(0)
end

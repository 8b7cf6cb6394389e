-- POSTs for wrk with a body of so many bytes:
--   wrk -s post.lua URL -- BYTES
function init(args)
    wrk.method = "POST"
    wrk.body = string.rep("x", tonumber(args[1]))
    wrk.headers["Content-Type"] = "application/octet-stream"
    whole = wrk.format()
end

function request()
    return whole
end

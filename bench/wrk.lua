-- The load for wrk, set by key=value words behind "--":
--   body=FILE      one and the same POST body for ever
--   bodies=FILE    a POST body a line, one after the other, over and over
--   fresh=PREFIX   a new text in every request: PREFIX and a counter (model=m, batch=1, format=base64)
--   accept=TYPE    Accept header
--   every=MS       a pause before each request: a client that thinks, not one that hammers
-- At the end one line of JSON: counts, errors, and latencies in microseconds.
function init(args)
	local o = {model = "m", batch = "1", format = "base64"}
	for _, word in ipairs(args) do
		local key, value = word:match("^(%w+)=(.*)$")
		o[key] = value
	end
	wrk.method = "POST"
	wrk.headers["Content-Type"] = "application/json"
	if o.accept then wrk.headers["Accept"] = o.accept end
	if o.body then
		local f = assert(io.open(o.body, "rb"))
		wrk.body = f:read("*a")
		f:close()
	end
	if o.bodies then
		local all, at = {}, 0
		for line in assert(io.open(o.bodies, "rb")):lines() do all[#all + 1] = wrk.format(nil, nil, nil, line) end
		request = function()
			at = at % #all + 1
			return all[at]
		end
	end
	if o.fresh then
		local n, batch = 0, tonumber(o.batch)
		request = function()
			local texts = {}
			for i = 1, batch do
				n = n + 1
				texts[i] = '"' .. o.fresh .. " the text of number " .. n .. '"'
			end
			return wrk.format(nil, nil, nil, '{"model":"' .. o.model .. '","input":[' ..
				table.concat(texts, ",") .. '],"encoding_format":"' .. o.format .. '"}')
		end
	end
	if o.every then
		delay = function() return tonumber(o.every) end
	end
end

function done(summary, latency)
	local e = summary.errors
	io.write(string.format('{"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
		summary.requests, summary.duration / 1e6, summary.bytes,
		e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end

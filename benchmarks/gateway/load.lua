-- wrk's requests, the judgement of every answer, and wrk's figures on one line of JSON. The environment says: MODEL, KEY, STREAM=1.
local stream = os.getenv("STREAM") == "1"
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
if os.getenv("KEY") ~= "" then wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY") end
wrk.body = '{"model":"' .. os.getenv("MODEL") .. '","messages":['
  .. '{"role":"system","content":"You are the support desk of a maker of televisions and speakers."},'
  .. '{"role":"user","content":"Good morning. My television, eight months old, goes dark a few seconds after I switch it on. I have tried two sockets and another cable. What should I do next?"}'
  .. '],"max_tokens":64,"temperature":0'
  .. (stream and ',"stream":true,"stream_options":{"include_usage":true}' or '') .. '}'

local threads = {}
function setup(thread) table.insert(threads, thread) end

checked, broken, why = 0, 0, ""
function response(status, headers, body)
  checked = checked + 1
  local whole = body:find(" token0", 1, true) and body:find(" token63", 1, true) and body:find('"completion_tokens"', 1, true)
    and (stream and body:sub(-14) == "data: [DONE]\n\n" or not stream and body:match("}%s*$"))
  if status ~= 200 or not whole then
    broken = broken + 1
    if why == "" then why = status .. " " .. body:sub(1, 200) end
  end
end

function done(summary, latency, requests)
  local all_checked, all_broken, first = 0, 0, ""
  for _, thread in ipairs(threads) do
    all_checked = all_checked + thread:get("checked")
    all_broken = all_broken + thread:get("broken")
    if first == "" then first = thread:get("why") end
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d,"checked":%d,"broken":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status, all_checked, all_broken))
  if first ~= "" then io.write("BROKEN " .. first:gsub("%s+", " ") .. "\n") end
end

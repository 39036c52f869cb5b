-- What the scripts of the limits store share. Each of them is this text and its own behind it.
--
-- The time is the store's, so the clocks of the gateways do not count. Numbers are doubles, which hold whole numbers up to
-- 2^53: times are microseconds since 1970, what is used of a bucket is nanoseconds that it takes to refill.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now / 1000)

-- A minute in nanoseconds, the size of a bucket.
local MINUTE = 60000000000
-- How long a full bucket is kept, in milliseconds: two periods.
local BUCKET_KEPT = 120000

local place = 0

-- Returns the next argument.
local function word()
  place = place + 1
  return ARGV[place]
end

local function number()
  return tonumber(word())
end

local function sums()
  return { number(), number(), number() }
end

-- Writes a number without an exponent, which Lua would add from 1e14 on.
local function text(value)
  return string.format('%.0f', value)
end

local function set_used(bucket, used)
  redis.call('HSET', bucket, 'at', text(now), 'used', text(used))
  redis.call('PEXPIRE', bucket, text(math.ceil(used / 1000000) + BUCKET_KEPT))
end

-- Returns what is used of a bucket now.
local function used_of(bucket)
  local state = redis.call('HMGET', bucket, 'at', 'used')
  if not state[1] then
    return 0
  end
  local at, used = tonumber(state[1]), tonumber(state[2])
  if at > now then
    -- The clock was set back. That refills nothing, and the bucket refills from now on, also if nothing is taken.
    set_used(bucket, used)
    return used
  end
  return math.max(0, used - (now - at) * 1000)
end

-- Gives back what a request has reserved.
local function give_back(reserved, hold)
  local tokens = redis.call('HGET', reserved, hold)
  if not tokens then
    return
  end
  redis.call('HDEL', reserved, hold)
  redis.call('HINCRBY', reserved, 'requests', -1)
  if tokens ~= '0' then
    redis.call('HINCRBY', reserved, 'tokens', '-' .. tokens)
  end
end

-- Ends the holds that were not renewed in time: their gateway has died.
local function end_old_holds(holds, reserved)
  local old = redis.call('ZRANGEBYSCORE', holds, '-inf', text(now_ms))
  for _, hold in ipairs(old) do
    give_back(reserved, hold)
  end
  if #old > 0 then
    redis.call('ZREMRANGEBYSCORE', holds, '-inf', text(now_ms))
  end
end

-- Keeps a hold for `term` milliseconds more. `tokens` is what its request has reserved of the budgets; '' for nothing.
local function keep_hold(holds, reserved, hold, term, tokens)
  redis.call('ZADD', holds, text(now_ms + term), hold)
  if tokens ~= '' and redis.call('HSETNX', reserved, hold, tokens) == 1 then
    redis.call('HINCRBY', reserved, 'requests', 1)
    redis.call('HINCRBY', reserved, 'tokens', tokens)
  end
  redis.call('PEXPIRE', holds, text(2 * term))
  redis.call('PEXPIRE', reserved, text(2 * term))
end

local NAMES = { 'requests', 'tokens', 'cost' }
-- The most fields of a period: three sums, and three of each start of a gateway that has used something. What later ones use
-- counts only by what they know.
local MOST_FIELDS = 3 + 3 * 10000

-- Adds what a gateway has used of a period since it last told. `own` is all that it has used since its start, so an order that
-- is repeated or lost does no harm. `known` is what its ledger has of the period, from before its start too: the sum is never
-- less, also after the store has lost its data. Returns the sums of all gateways.
local function add(period, gateway, own, known, seconds)
  local fields = {}
  for _, name in ipairs(NAMES) do
    fields[#fields + 1] = name
    fields[#fields + 1] = gateway .. ':' .. name
  end
  local found = redis.call('HMGET', period, unpack(fields))
  local total, changed = {}, {}
  for i, name in ipairs(NAMES) do
    local before, told = tonumber(found[2 * i - 1] or 0), tonumber(found[2 * i] or 0)
    local sum = before
    if own[i] > told and (found[2 * i] or redis.call('HLEN', period) < MOST_FIELDS) then
      sum = sum + own[i] - told
      changed[#changed + 1] = gateway .. ':' .. name
      changed[#changed + 1] = text(own[i])
    end
    sum = math.max(sum, known[i])
    if sum ~= before then
      changed[#changed + 1] = name
      changed[#changed + 1] = text(sum)
    end
    total[i] = sum
  end
  if #changed > 0 then
    redis.call('HSET', period, unpack(changed))
    redis.call('EXPIRE', period, seconds)
  end
  return total
end

-- The keys of an account, of a key or of a person behind it: its holds, what they have reserved, its day and its month.
local function account(index)
  local first = 2 + 4 * (index - 1)
  return { holds = KEYS[first + 1], reserved = KEYS[first + 2], day = KEYS[first + 3], month = KEYS[first + 4] }
end

-- Reads what a gateway tells of an account, and adds it up.
local function read_use(of, gateway)
  of.used_day = add(of.day, gateway, sums(), sums(), 2 * 86400)
  of.used_month = add(of.month, gateway, sums(), sums(), 62 * 86400)
end

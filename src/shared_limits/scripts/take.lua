-- Checks all limits of a key for one request, and takes from all of them or from none.
--
-- KEYS: the bucket of requests, the bucket of tokens, and four keys of each account. The account of the key comes first.
-- ARGV: the gateway;
--       of requests the price of one (0: none is taken), the size of the bucket, and what the gateway knows to be used of it;
--       of tokens what must be left (0: they are not limited), and what the gateway knows to be used;
--       the hold ('': none), its term, and the most holds of the key (0: not limited);
--       the number of accounts, and of each: the tokens to reserve, the limits on the requests and the tokens of a day and the
--       tokens and the cost of a month (-1: none), and what the gateway has used.
-- Returns the verdict (0: taken; 1: requests, 2: tokens, 3: holds, 3 + n: a limit of account n), the store's time, what is
-- used of both buckets, and of each account the requests and the tokens reserved, and the sums of its day and its month.

local gateway = word()
local price, size, known = number(), number(), number()
local need, tokens_known = number(), number()
local hold, term, most = word(), number(), number()
local of_key = account(1)
local accounts = {}
for index = 1, number() do
  local of = account(index)
  of.tokens = word()
  of.limits = { number(), number(), number(), number() }
  read_use(of, gateway)
  end_old_holds(of.holds, of.reserved)
  local reserved = redis.call('HMGET', of.reserved, 'requests', 'tokens')
  of.reserved_requests, of.reserved_tokens = tonumber(reserved[1] or 0), tonumber(reserved[2] or 0)
  accounts[index] = of
end
if most > 0 and #accounts == 0 then
  end_old_holds(of_key.holds, of_key.reserved)
end

local function exceeds(of)
  local limits, day, month, tokens = of.limits, of.used_day, of.used_month, tonumber(of.tokens)
  local function has_too_few(limit, used)
    local left = limit - used - of.reserved_tokens
    return limit >= 0 and (left <= 0 or tokens > left)
  end
  return (limits[1] >= 0 and day[1] + of.reserved_requests >= limits[1])
    or has_too_few(limits[2], day[2])
    or has_too_few(limits[3], month[2])
    or (limits[4] >= 0 and month[3] >= limits[4])
end

-- The gateway knows more than the store if it has served requests without it, or if the store has lost its data.
local used, tokens_used = math.max(used_of(KEYS[1]), known), math.max(used_of(KEYS[2]), tokens_known)
local verdict = 0
if price > 0 and used + price > size then
  verdict = 1
elseif need > 0 and tokens_used + need > MINUTE then
  verdict = 2
elseif most > 0 and redis.call('ZCARD', of_key.holds) >= most then
  verdict = 3
else
  for index, of in ipairs(accounts) do
    if exceeds(of) then
      verdict = 3 + index
      break
    end
  end
end

if verdict == 0 then
  if price > 0 then
    used = used + price
    set_used(KEYS[1], used)
  end
  if hold ~= '' and #accounts == 0 then
    keep_hold(of_key.holds, of_key.reserved, hold, term, '')
  end
  for _, of in ipairs(accounts) do
    keep_hold(of.holds, of.reserved, hold, term, of.tokens)
    of.reserved_requests, of.reserved_tokens = of.reserved_requests + 1, of.reserved_tokens + tonumber(of.tokens)
  end
end

local answer = { verdict, now, used, tokens_used }
for _, of in ipairs(accounts) do
  answer[#answer + 1] = of.reserved_requests
  answer[#answer + 1] = of.reserved_tokens
  for i = 1, 3 do
    answer[#answer + 1] = of.used_day[i]
  end
  for i = 1, 3 do
    answer[#answer + 1] = of.used_month[i]
  end
end
return answer

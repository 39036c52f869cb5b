-- Ends a request: gives back what it held and did not use, and charges what it has used.
--
-- KEYS: as for a take.
-- ARGV: the gateway; what to give back to the bucket of requests; what to take from that of tokens; the hold ('': none);
--       the number of accounts, and of each what the gateway has used.

local gateway = word()
local refund, cost, hold = number(), number(), word()
if refund > 0 then
  local used = used_of(KEYS[1])
  if used > 0 then
    set_used(KEYS[1], math.max(0, used - refund))
  end
end
if cost > 0 then
  set_used(KEYS[2], used_of(KEYS[2]) + cost)
end
local function end_hold(of)
  if hold ~= '' then
    redis.call('ZREM', of.holds, hold)
    give_back(of.reserved, hold)
  end
end
local count = number()
if count == 0 then
  end_hold(account(1))
end
for index = 1, count do
  local of = account(index)
  end_hold(of)
  read_use(of, gateway)
end
return now

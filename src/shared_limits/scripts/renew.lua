-- Keeps the hold of a request that is still in flight.
--
-- KEYS: of each account its holds and what they have reserved.
-- ARGV: the hold, its term, and of each account the tokens that the request has reserved ('': none).

local hold, term = word(), number()
for first = 1, #KEYS, 2 do
  keep_hold(KEYS[first], KEYS[first + 1], hold, term, word())
end
return now

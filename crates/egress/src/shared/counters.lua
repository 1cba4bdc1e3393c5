-- Counters of limits that several daemons share. One call, one step: nothing
-- comes between its parts, and the time is the server's.
--
-- KEYS[1]  what is known of the calling daemon ("instance")
-- KEYS[2]  the number of the last change of it that was counted
-- KEYS[3…] counters, one for each entry
-- ARGV     op, instance, term, change, milliseconds that an instance lives
--          without a word; then for each entry: span (m, h, d, o), 1 where a
--          reserve is used at once, most, amount, used, taken, given, holds,
--          floor, the floor's start
--
-- A counter is a hash: u used, s first moment of its day or month, h held by all.
-- Beside it lie `:m`, what was used by the second, and `:r`, held by instance.
local op, instance, term = ARGV[1], ARGV[2], ARGV[3]
local change, alive_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local clock = redis.call('TIME')
local second = tonumber(clock[1])
local now = second * 1000 + math.floor(tonumber(clock[2]) / 1000)
local DAY = 86400000

local function month_start(ms)
  -- Hinnant's civil_from_days, as far as the day of the month.
  local days = math.floor(ms / DAY) + 719468
  local of_era = days % 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local day = of_year - math.floor((153 * month + 2) / 5)
  return (math.floor(ms / DAY) - day) * DAY
end

-- An instance whose word is another's, or that the server forgot, begins anew.
if op == 'begin' then
  redis.call('HSET', KEYS[1], 'term', term)
elseif redis.call('HGET', KEYS[1], 'term') ~= term then
  return {'stale'}
end
redis.call('PEXPIRE', KEYS[1], alive_ms)
local fresh = false
if op ~= 'reserve' then
  fresh = change > tonumber(redis.call('GET', KEYS[2]) or '0')
  if fresh then
    redis.call('SET', KEYS[2], change, 'EX', 172800)
  end
end

local function load(key, span)
  local all = redis.call('HMGET', key, 'u', 's', 'h')
  local counter = {used = 0, start = 0, held = tonumber(all[3] or '0')}
  if span == 'm' then
    local seconds = redis.call('HGETALL', key .. ':m')
    for i = 1, #seconds, 2 do
      -- A minute and the second that has begun: never counted short.
      if tonumber(seconds[i]) < second - 60 then
        redis.call('HDEL', key .. ':m', seconds[i])
      else
        counter.used = counter.used + tonumber(seconds[i + 1])
      end
    end
  elseif span ~= 'h' then
    local start = span == 'd' and now - now % DAY or month_start(now)
    local known = tonumber(all[2] or '0')
    if known < start then
      redis.call('HSET', key, 's', start, 'u', 0)
      counter.start = start
    else
      -- A clock that was set back brings nothing back.
      counter.start, counter.used = known, tonumber(all[1] or '0')
    end
  end
  return counter
end

local function keep(key, span)
  local seconds = span == 'o' and 5616000 or 259200
  redis.call('EXPIRE', key, seconds)
  redis.call('EXPIRE', key .. ':r', seconds)
  redis.call('EXPIRE', key .. ':m', 120)
end

-- Holds change by `by` for this instance, never below nothing.
local function hold(key, by)
  if by == 0 then return 0 end
  local own = tonumber(redis.call('HGET', key .. ':r', instance) or '0')
  if own + by < 0 then by = -own end
  if own + by == 0 then
    redis.call('HDEL', key .. ':r', instance)
  else
    redis.call('HINCRBY', key .. ':r', instance, by)
  end
  redis.call('HINCRBY', key, 'h', by)
  return by
end

local function use(key, span, amount)
  if amount == 0 or span == 'h' then return end
  if span == 'm' then
    redis.call('HINCRBY', key .. ':m', second, amount)
  else
    redis.call('HINCRBY', key, 'u', amount)
  end
end

-- Daemons that died give back what they held. Looked for only where it matters.
local prefix = string.sub(KEYS[1], 1, #KEYS[1] - #instance)
local function sweep(key)
  local back = 0
  local holds = redis.call('HGETALL', key .. ':r')
  for i = 1, #holds, 2 do
    if redis.call('EXISTS', prefix .. holds[i]) == 0 then
      back = back + tonumber(holds[i + 1])
      redis.call('HDEL', key .. ':r', holds[i])
    end
  end
  if back > 0 then redis.call('HINCRBY', key, 'h', -back) end
  return back
end

local entries, counters = {}, {}
for i = 3, #KEYS do
  local at = 5 + (i - 3) * 10
  entries[i] = {
    span = ARGV[at + 1], at_once = ARGV[at + 2] == '1', most = tonumber(ARGV[at + 3]),
    amount = tonumber(ARGV[at + 4]), used = tonumber(ARGV[at + 5]),
    taken = tonumber(ARGV[at + 6]), given = tonumber(ARGV[at + 7]),
    holds = tonumber(ARGV[at + 8]), floor = tonumber(ARGV[at + 9]),
    floor_start = tonumber(ARGV[at + 10]),
  }
  counters[i] = load(KEYS[i], entries[i].span)
end

local verdict, place = 'done', 0
if op == 'reserve' then
  for i = 3, #KEYS do
    local entry, counter = entries[i], counters[i]
    local function short()
      return entry.amount > 0 and counter.used + counter.held + entry.amount > entry.most
    end
    if short() then
      counter.held = counter.held - sweep(KEYS[i])
      if short() and verdict == 'done' then verdict, place = 'denied', i - 3 end
    end
  end
  if verdict == 'done' then
    for i = 3, #KEYS do
      local entry, counter = entries[i], counters[i]
      if entry.at_once then
        use(KEYS[i], entry.span, entry.amount)
        counter.used = counter.used + entry.amount
      else
        counter.held = counter.held + hold(KEYS[i], entry.amount)
      end
      keep(KEYS[i], entry.span)
    end
  end
else
  for i = 3, #KEYS do
    local entry, counter, key = entries[i], counters[i], KEYS[i]
    if op == 'begin' then
      local own = tonumber(redis.call('HGET', key .. ':r', instance) or '0')
      counter.held = counter.held + hold(key, entry.holds - own)
      -- What a server lost that was killed, the daemons still know.
      if entry.floor_start ~= 0 and entry.floor_start == counter.start
        and entry.floor > counter.used then
        redis.call('HSET', key, 'u', entry.floor)
        counter.used = entry.floor
      end
    elseif fresh then
      counter.held = counter.held + hold(key, entry.taken - entry.given)
    end
    if fresh then
      use(key, entry.span, entry.used)
      if entry.span ~= 'h' then counter.used = counter.used + entry.used end
    end
    if counter.held > 0 and entry.amount > 0 then
      counter.held = counter.held - sweep(key)
    end
    keep(key, entry.span)
  end
end

local told = {verdict, place}
for i = 3, #KEYS do
  told[#told + 1] = counters[i].used
  told[#told + 1] = counters[i].held
  told[#told + 1] = counters[i].start
end
return told

"""
What a pool is in Redis, and the scripts that change it: each one atomic step, by Redis's own clock.

Two keys a pool, with one hash tag, so that they are on one node. ``P`` is ``{devsup:pool:NAME}``:

    P       hash   ``life``, since when (microseconds) and a random word; ``fencing``, the highest number;
                   ``places``, how many items were ever named; ``i:ITEM``, its place in the order, `-` where
                   it was taken out; ``l:ITEM``, its last lease: fencing number, end, name of the call, owner
                   (empty where it is given back); ``c:CALL``, the item of a lease in force: an answer that
                   was lost is given again
    P:ends  zset   item -> twice the ms when its last lease is or was over, and one more where it was given
                   back: then `l:` need not be read; what was never lent has its place there

and ``devsup:pools`` is the set of the names. The item to lend is the first of `ends`, so that a pool of any
size costs as little; `ends` has every item that is lent, and nothing but those (invariant, kept by `_DEFINE`,
`_ADD` and `_REMOVE`). Fencing numbers are at least the time in microseconds: they grow also where the data
was lost, unless the clock was set back. A lease that is not over and older than the pool, or with a number
higher than any that the pool knows, is of data that was lost: it is as good as ever, if nobody has had its
item since.

Pure but for a random word: texts, and the tuples of their answers, which are those of `registry.lending`.
Written for Redis 6.2.
"""

from __future__ import annotations

import os

from devsup.pool._core import decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.pool._core import Answer, Request

__all__ = ["NAMES", "SCRIPTS", "arguments", "keys", "read"]

#: The set of the names of all pools.
NAMES = "devsup:pools"

_HEAD = """
local P, ENDS, format = KEYS[1], KEYS[2], string.format
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_PARSED = """
local function parsed(found)
  if not found then return 0, 0, '-', '' end
  local fencing, ends, call, owner = string.match(found, '^(%d+) (%d+) (%S+) (.*)$')
  return tonumber(fencing), tonumber(ends), call, owner
end
"""
_KNOWN = """
if redis.call('HGET', P, 'life') ~= ARGV[1] then return {'undefined'} end
"""

# ARGV: a new life, the items.
_DEFINE = (
    _HEAD
    + _PARSED
    + """
redis.call('HSETNX', P, 'life', format('%.0f', time[1] * 1000000 + time[2]) .. '-' .. ARGV[1])
redis.call('HSETNX', P, 'fencing', '0')
local function place(item)
  local at = redis.call('HGET', P, 'i:' .. item)
  if not at then
    at = redis.call('HINCRBY', P, 'places', 1)
    redis.call('HSET', P, 'i:' .. item, at)
  end
  if at ~= '-' then
    local _, ends = parsed(redis.call('HGET', P, 'l:' .. item))
    redis.call('ZADD', ENDS, 'NX', format('%.0f', math.max(ends * 2, tonumber(at))), item)
  end
end
if redis.call('EXISTS', ENDS) == 0 then  -- a full Redis may have dropped this one key
  for _, field in ipairs(redis.call('HKEYS', P)) do
    if string.sub(field, 1, 2) == 'i:' then place(string.sub(field, 3)) end
  end
end
for number = 2, #ARGV do place(ARGV[number]) end
return {'defined', redis.call('HGET', P, 'life')}
"""
)

# ARGV: life, owner, ttl (ms), the name of this call.
_ACQUIRE = (
    _HEAD
    + _PARSED
    + """
local known = redis.call('HMGET', P, 'life', 'fencing', 'c:' .. ARGV[4])
if known[1] ~= ARGV[1] then return {'undefined'} end
if known[3] then
  local fencing, ends, call = parsed(redis.call('HGET', P, 'l:' .. known[3]))
  if call == ARGV[4] and ends > now then
    return {'lent', known[3], format('%.0f', fencing), format('%.0f', ends)}
  end
end
local first = redis.call('ZRANGE', ENDS, 0, 0, 'WITHSCORES')
local item = first[1]
if not item then
  local names_item = false
  for number, value in ipairs(redis.call('HGETALL', P)) do
    if number % 2 == 1 then
      names_item = string.sub(value, 1, 2) == 'i:'
    elseif names_item and value ~= '-' then
      return {'undefined'}
    end
  end
  return {'full'}
end
local score = tonumber(first[2])
if score % 2 == 0 then  -- held, or not given back
  local _, ends, before, by = parsed(redis.call('HGET', P, 'l:' .. item))
  if score > now * 2 then return {'full', item, by, format('%.0f', ends)} end
  if before ~= '-' then redis.call('HDEL', P, 'c:' .. before) end
end
local fencing = format('%.0f', math.max(known[2] + 1, time[1] * 1000000 + time[2]))
local ends = format('%.0f', now + ARGV[3])
redis.call('HSET', P, 'fencing', fencing, 'c:' .. ARGV[4], item,
  'l:' .. item, fencing .. ' ' .. ends .. ' ' .. ARGV[4] .. ' ' .. ARGV[2])
redis.call('ZADD', ENDS, format('%.0f', ends * 2), item)
return {'lent', item, fencing, ends}
"""
)

# `mine`: whether the lease (owner, fencing) of the item is in force, or was before the data was lost.
_MINE = """
local known = redis.call('HMGET', P, 'life', 'fencing', 'i:' .. ARGV[2], 'l:' .. ARGV[2])
if known[1] ~= ARGV[1] then return {'undefined'} end
local item, owner, fencing = ARGV[2], ARGV[3], tonumber(ARGV[4])
local last, ends, call, by = parsed(known[4])
local mine = last == fencing and by == owner and ends > now
if not mine and last < fencing and tonumber(ARGV[5]) > now and known[3] then
  local counter, born = tonumber(known[2]), tonumber(string.match(known[1], '^%d+'))
  if counter < fencing then redis.call('HSET', P, 'fencing', ARGV[4]) end
  if counter < fencing or fencing < born then mine, call = true, '-' end
end
if ends <= now then by = '' end
"""

# ARGV: life, item, owner, fencing, when the lease is over as its holder knows it, ttl (ms).
_RENEW = (
    _HEAD
    + _PARSED
    + _MINE
    + """
if not mine then return {'no', by} end
ends = format('%.0f', now + ARGV[6])
redis.call('HSET', P, 'l:' .. item, ARGV[4] .. ' ' .. ends .. ' ' .. call .. ' ' .. owner)
redis.call('ZADD', ENDS, 'XX', format('%.0f', ends * 2), item)
return {'lent', item, ARGV[4], ends}
"""
)

# ARGV: life, item, owner, fencing, when the lease is over as its holder knows it, the name of this call.
_RELEASE = (
    _HEAD
    + _PARSED
    + _MINE
    + """
if last == fencing and call == ARGV[6] then return {'freed'} end  -- the answer to this very call was lost
if not mine then return {'no', by} end
if call ~= '-' then redis.call('HDEL', P, 'c:' .. call) end
now = format('%.0f', now)
redis.call('HSET', P, 'l:' .. item, ARGV[4] .. ' ' .. now .. ' ' .. ARGV[6] .. ' ')
redis.call('ZADD', ENDS, 'XX', format('%.0f', now * 2 + 1), item)
return {'freed'}
"""
)

# ARGV: life.
_ITEMS = (
    _HEAD
    + _PARSED
    + _KNOWN
    + """
local found, fields = {}, redis.call('HGETALL', P)
local leases = {}
for number = 1, #fields, 2 do
  if string.sub(fields[number], 1, 2) == 'l:' then
    leases[string.sub(fields[number], 3)] = fields[number + 1]
  end
end
for number = 1, #fields, 2 do
  if string.sub(fields[number], 1, 2) == 'i:' then
    local item, at = string.sub(fields[number], 3), fields[number + 1]
    local fencing, ends, _, owner = parsed(leases[item])
    local held = owner ~= '' and ends > now
    if held or at ~= '-' then
      found[#found + 1] = {item, held and owner or '', format('%.0f', fencing), format('%.0f', ends), at}
    end
  end
end
return {'items', found}
"""
)

# ARGV: life, item.
_ADD = (
    _HEAD
    + _PARSED
    + _KNOWN
    + """
local at = redis.call('HGET', P, 'i:' .. ARGV[2])
if at and at ~= '-' then return {'added', 0} end
at = redis.call('HINCRBY', P, 'places', 1)
redis.call('HSET', P, 'i:' .. ARGV[2], at)
local _, ends = parsed(redis.call('HGET', P, 'l:' .. ARGV[2]))
redis.call('ZADD', ENDS, format('%.0f', math.max(ends * 2, tonumber(at))), ARGV[2])
return {'added', 1}
"""
)

# ARGV: life, item.
_REMOVE = (
    _HEAD
    + _KNOWN
    + """
local at = redis.call('HGET', P, 'i:' .. ARGV[2])
if not at or at == '-' then return {'removed', 0} end
redis.call('HSET', P, 'i:' .. ARGV[2], '-')
redis.call('ZREM', ENDS, ARGV[2])
return {'removed', 1}
"""
)

# ARGV: life, item.
_FREE = (
    _HEAD
    + _PARSED
    + _KNOWN
    + """
local fencing, ends, call, owner = parsed(redis.call('HGET', P, 'l:' .. ARGV[2]))
if owner == '' or ends <= now then return {'no', ''} end
redis.call('HDEL', P, 'c:' .. call)
now = format('%.0f', now)
redis.call('HSET', P, 'l:' .. ARGV[2], format('%.0f', fencing) .. ' ' .. now .. ' - ')
redis.call('ZADD', ENDS, 'XX', format('%.0f', now * 2 + 1), ARGV[2])
return {'freed'}
"""
)

SCRIPTS = {
    "define": _DEFINE,
    "acquire": _ACQUIRE,
    "renew": _RENEW,
    "release": _RELEASE,
    "items": _ITEMS,
    "add": _ADD,
    "remove": _REMOVE,
    "free": _FREE,
}


def keys(name: str) -> tuple[str, str]:
    """Return the keys of a pool, in the order in which the scripts know them."""
    pool = f"{{devsup:pool:{name}}}"
    return pool, f"{pool}:ends"


def arguments(request: Request) -> tuple[str | int, ...]:
    """Return the arguments of the script for a request; a new life, for a pool that has none, is random."""
    operation, given = request
    return (os.urandom(8).hex(), *given[0]) if operation == "define" else given


def read(answer: list[Any]) -> Answer:
    """
    Return the answer of a script as that of a store.

    :raises IndexError, TypeError, ValueError: what is in the keys was written by somebody else
    """
    word = answer[0]
    if word == "lent":
        return word, _known(answer[1]), int(answer[2]), int(answer[3])
    if word == "full" and len(answer) > 1:
        return word, _known(answer[1]), answer[2] or None, int(answer[3])
    if word == "no":
        return word, answer[1] or None
    if word == "items":
        # What was taken out and is still held comes last.
        found = sorted(answer[1], key=lambda one: (one[4] == "-", 0 if one[4] == "-" else int(one[4])))
        return word, *(
            (_known(item), by or None, int(number), int(ends)) for item, by, number, ends, _ in found
        )
    return tuple(answer)


def _known(item: str) -> str:
    decoded(item)
    return item

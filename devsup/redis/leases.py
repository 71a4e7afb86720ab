"""
A lease: something that one holder has at a time, until it is over unless it is renewed.

One hash a lease, gone by itself when its time is over, and beside it a counter that stays. Whoever acquires
brings a random token, by which alone it renews and releases; all is compared inside Redis, in one step, by
Redis's own clock. Each acquisition gets a fencing number higher than all before it. As it is never below the
time of day in microseconds, which no sequence of acquisitions outruns, this holds also where Redis came back
without its data, unless its clock was set back meanwhile.

Redis that came back empty is no end of a lease: the next renewal takes it again with its old number, unless
somebody else has had it since. Of two who then both have one, the higher number counts.

Pure: commands are made and answers are read here, sent by whoever has a connection. Written for Redis 6.2.
"""

from __future__ import annotations

from devsup.records import Record
from devsup.redis.resp import mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Granted", "Held", "Keys", "acquire", "answered", "holder", "look", "release", "renew"]

#: The time of day by Redis, in ms, as `now`.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# ARGV: token, ttl (ms), the token or the place and server to take it from (or none), and what else is to be
# known of the holder.
_ACQUIRE = f"""{_NOW}
local held, place, server = unpack(redis.call('HMGET', KEYS[1], 'token', 'place', 'server'))
local whose = place and server and place .. ' ' .. server
if held == ARGV[1] then  -- the answer to this very call was lost
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {{1, tonumber(redis.call('HGET', KEYS[1], 'fencing')), now}}
elseif held and held ~= ARGV[3] and whose ~= ARGV[3] then
  return {{0, redis.call('PTTL', KEYS[1]), now, redis.call('HGETALL', KEYS[1])}}
end
local fencing = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, time[1] * 1000000 + time[2])
local number = string.format('%.0f', fencing)
redis.call('SET', KEYS[2], number)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fencing', number, unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {{1, fencing, now}}
"""

# ARGV: token, ttl (ms), fencing number, and what else is to be known. What a full Redis refuses comes after
# something that it takes: then it takes that, too.
_RENEW = f"""{_NOW}
local held = redis.call('HMGET', KEYS[1], 'token', 'fencing')
local mine, last = tonumber(ARGV[3]), tonumber(redis.call('GET', KEYS[2]) or 0)
if held[1] == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if #ARGV > 3 then
    redis.pcall('HSET', KEYS[1], unpack(ARGV, 4))
  end
  return {{1, tonumber(held[2]) or mine, now}}
elseif held[1] and tonumber(held[2]) >= mine or not held[1] and last > mine then
  return {{0, redis.call('PTTL', KEYS[1]), now, redis.call('HGETALL', KEYS[1]), last}}
end
redis.call('DEL', KEYS[1])
if last < mine then
  redis.call('SET', KEYS[2], ARGV[3])
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fencing', ARGV[3], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {{1, mine, now}}
"""

# A waiter is woken by an element; one that nobody waits for is gone after a second.
_RELEASE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.pcall('RPUSH', KEYS[2], '1')
  redis.call('PEXPIRE', KEYS[2], 1000)
end
return 1
"""


class Keys(Record):
    """Where a lease stands: it, its counter and, where somebody may wait for it, what wakes these."""

    lease: str
    counter: str
    wake: str | None = None


class Granted(Record):
    """
    The caller has the lease, since ``at`` (ms since the epoch, by Redis), with ``fencing``.

    A renewal may be the first to tell of a higher number: who was given that has not lived to write it down.
    """

    fencing: int
    at: int


class Held(Record):
    """
    Somebody else has the lease for ``left`` ms more, or has had it meanwhile (then ``holder`` is empty).

    ``holder`` are the fields of the lease; ``fencing`` is the highest number there is, 0 where not known.
    """

    holder: dict[str, str]
    left: int
    at: int
    fencing: int


def acquire(
    keys: Keys, token: str, ttl_ms: int, info: Mapping[str, str], *, instead: str = ""
) -> tuple[str | int, ...]:
    """
    Return the command that takes the lease where it is free, or held by the token ``instead``.

    What a lease says of its ``place`` and ``server``, with a blank in between, may stand there as well.
    """
    return "EVAL", _ACQUIRE, 2, keys.lease, keys.counter, token, ttl_ms, instead, *_flat(info)


def renew(
    keys: Keys, token: str, ttl_ms: int, fencing: int, info: Mapping[str, str]
) -> tuple[str | int, ...]:
    """Return the command that lets ``token`` keep the lease for ``ttl_ms`` more; ``info`` is written anew."""
    return "EVAL", _RENEW, 2, keys.lease, keys.counter, token, ttl_ms, fencing, *_flat(info)


def release(keys: Keys, token: str) -> tuple[str | int, ...]:
    """Return the command that gives the lease back; its answer is 0 where it was not the token's."""
    wake = () if keys.wake is None else (keys.wake,)
    return "EVAL", _RELEASE, 1 + len(wake), keys.lease, *wake, token


def look(keys: Keys) -> tuple[str | int, ...]:
    """Return the command that asks who has the lease; see `holder`."""
    return "HGETALL", keys.lease


def answered(answer: Any) -> Granted | Held:
    """Read the answer to `acquire` and to `renew`."""
    given, number, at, *rest = answer
    if given:
        return Granted(int(number), int(at))
    return Held(holder(rest[0]), max(0, int(number)), int(at), int(rest[1]) if len(rest) > 1 else 0)


def holder(answer: Any) -> dict[str, str]:
    """Read the fields of a lease: a list of names and values, or a dictionary, as the protocol gives it."""
    return {str(name): str(value) for name, value in mapping(answer or []).items()}


def _flat(info: Mapping[str, str]) -> list[str]:
    return [part for pair in info.items() for part in pair]

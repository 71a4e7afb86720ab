"""
The fleet's list of servers: each published by its own guard, with a sign of life every third of its time.

Nobody has to take a server off the list that cannot do it itself: what is not heard of for its time is lost,
and a day later whoever publishes removes it. A list is one moment, read by one command in one round trip.
"""

from __future__ import annotations

import json

from devsup.fleet import keys
from devsup.models import State
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Entry", "entries", "forget", "probe", "publish", "read_all"]

#: Milliseconds after which a lost server is shown no more.
FORGOTTEN_AFTER = 86_400_000

# ARGV: id, record, age at which others are forgotten (ms). It begins by removing: what a script writes after
# that is taken also by a Redis that is full, and a sign of life needs no room.
_PUBLISH = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3], 'LIMIT', 0, 100)) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
return now
"""

# KEYS: servers, seen, mail and, for an exclusive app, its lease. ARGV: id, token.
_FORGET = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
if KEYS[4] and redis.call('HGET', KEYS[4], 'token') == ARGV[2] then
  redis.call('DEL', KEYS[4])
end
return 1
"""

_LIST = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {now, redis.call('HGETALL', KEYS[1]), redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')}
"""


#: Milliseconds that what `probe` writes is there.
_PROBE_LIVES = 1000
_PROBE = "return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])"


class Entry(Record):
    """
    One server of the fleet: the fields of its public record, and where it is.

    ``project`` is its project for the whole fleet; ``seen_at`` is in ms since the epoch, by Redis, and
    ``lost`` says that this is longer ago than its own time allows.
    """

    server: dict[str, Any]
    host: str
    project: str | None
    seen_at: int
    lost: bool

    @property
    def id(self) -> str:
        """The server's id."""
        return str(self.server["id"])


def publish(fleet: str, server: dict[str, Any], *, host: str, project: str | None, ttl: float) -> list[Any]:
    """Return the command that publishes ``server``, the fields of its public record, and says it is there."""
    record = {"server": server, "host": host, "project": project, "ttl_ms": round(ttl * 1e3)}
    text = json.dumps(record, separators=(",", ":"))
    where = (keys.servers(fleet), keys.seen(fleet))
    return ["EVAL", _PUBLISH, 2, *where, server["id"], text, FORGOTTEN_AFTER]


def forget(fleet: str, server: str, *, lease: str | None = None, token: str = "") -> list[Any]:
    """Return the command that takes a server off the list and, where it has one, gives its lease back."""
    where = [keys.servers(fleet), keys.seen(fleet), keys.mail(fleet, server)]
    where += [] if lease is None else [lease]
    return ["EVAL", _FORGET, len(where), *where, server, token]


def probe(fleet: str) -> tuple[str | int, ...]:
    """Return the command that tells whether this Redis lets this user write, by a key that goes at once."""
    return "EVAL", _PROBE, 1, f"{keys.prefix(fleet)}doctor", _PROBE_LIVES


def read_all(fleet: str) -> list[Any]:
    """Return the command whose answer `entries` reads."""
    return ["EVAL", _LIST, 2, keys.servers(fleet), keys.seen(fleet)]


def entries(answer: Any) -> list[Entry]:
    """
    Read the list: by host, then as they were started.

    What another version or a stranger wrote is left out, and what never gave a sign of life.
    """
    now, records, signs = answer
    # None can be later than now: if one is, the clock of Redis was set back, or no guard has written it.
    seen = {name: int(max(0.0, min(float(at), now))) for name, at in zip(*_pairs(signs), strict=True)}
    found = [
        _entry(text, seen[name], now) for name, text in zip(*_pairs(records), strict=True) if name in seen
    ]
    shown = [one for one in found if one is not None]
    return sorted(shown, key=lambda one: (one.host, str(one.server.get("started_at")), one.id))


def _pairs(flat: list[str]) -> tuple[list[str], list[str]]:
    return flat[::2], flat[1::2]


def _entry(text: str, seen: int, now: int) -> Entry | None:
    try:
        record = json.loads(text)
        server, host, project = record["server"], str(record["host"]), record["project"]
        lost = now - seen > int(record["ttl_ms"])
        server["id"], server["state"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if lost:
        server = {**server, "state": State.LOST.value, "pid": None, "guard_pid": None}
    return Entry(server, host, project, seen, lost)

"""
What one host asks the guard of a server on another host to do, and what that answers.

A request lies in a list until the guard takes it, or its time is over; a message on a channel of the same
name wakes the guard. It is never obeyed later than its caller waits. A caller that goes takes it back, and
where the guard has it already tells that: one that has not begun yet, as it waits for an operation, does not.
"""

from __future__ import annotations

import json

from devsup.fleet import keys
from devsup.records import Record
from devsup.redis.hosts import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Stop",
    "answer",
    "element_of",
    "look_for_answer",
    "post",
    "posted",
    "read_answer",
    "take",
    "taken",
    "wait_for_answer",
    "withdraw",
    "withdrawn",
]

#: Milliseconds that an answer, and a request that is over, wait for a caller that has perhaps been killed.
_KEPT = 60_000
#: Seconds of a grace that count.
_MOST_GRACE = 86_400.0

# ARGV: milliseconds until it is over, request, milliseconds for which it can be taken back after that: while
# it lies there nobody has heard of it. An element is the time until which it may be obeyed, and the request.
# Where the caller may not use channels, the guard comes upon it at its next look.
_POST = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local element = string.format('%.0f %s', now + ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[1], element)
redis.call('PEXPIRE', KEYS[1], math.max(ARGV[1] + ARGV[3], redis.call('PTTL', KEYS[1])))
redis.pcall('PUBLISH', KEYS[1], '')
return element
"""

_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local valid = {}
for _, element in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local over, text = string.match(element, '^(%d+) (.*)$')
  if over and tonumber(over) >= now then
    table.insert(valid, {tonumber(over) - now, text})
  end
end
redis.call('DEL', KEYS[1])
return valid
"""

# ARGV: element, what to tell the guard that has it, for as long as it may obey.
_WITHDRAW = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) > 0 then
  return 1
end
local time = redis.call('TIME')
local over = tonumber(string.match(ARGV[1], '^%d+'))
local left = over - time[1] * 1000 - math.floor(time[2] / 1000)
if left > 0 then
  redis.call('RPUSH', KEYS[1], string.format('%.0f %s', over, ARGV[2]))
  redis.call('PEXPIRE', KEYS[1], math.max(left, redis.call('PTTL', KEYS[1])))
  redis.pcall('PUBLISH', KEYS[1], '')
end
return 0
"""

_ANSWER = """
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


class Stop(Record):
    """
    End one generation of a server.

    ``id`` names the request; ``by`` is who asks, for people; ``owner`` is whose call it is, and ``may_take``
    whether it may end what is somebody else's. ``grace`` are seconds, None for the server's own.
    """

    id: str
    server: str
    generation: int
    by: str
    owner: str
    may_take: bool
    grace: float | None
    sweep: bool


def post(fleet: str, request: Stop, timeout: float) -> list[Any]:
    """Return the command that asks; its answer is what `withdraw` needs."""
    text = json.dumps({"verb": "stop", **request.asdict()}, separators=(",", ":"))
    return ["EVAL", _POST, 1, keys.mail(fleet, request.server), round(timeout * 1e3), text, _KEPT]


def posted(fleet: str, request: Stop) -> list[Any]:
    """Return the command that shows what lies there; see `element_of`."""
    return ["LRANGE", keys.mail(fleet, request.server), 0, -1]


def element_of(reply: Any, request: Stop) -> str | None:
    """Return what `withdraw` needs, where the answer to `post` was not heard; None where it is not there."""
    own = f'"id":{json.dumps(request.id)}'
    return next((str(one) for one in reply or () if own in str(one)), None)


def withdraw(fleet: str, request: Stop, element: str) -> list[Any]:
    """Return the command that takes a request back; the answer is 0 where the guard has it, and is told."""
    text = json.dumps({"verb": "withdraw", "id": request.id}, separators=(",", ":"))
    return ["EVAL", _WITHDRAW, 1, keys.mail(fleet, request.server), element, text]


def take(fleet: str, server: str) -> list[Any]:
    """Return the command with which a guard takes what it is asked; see `taken`."""
    return ["EVAL", _TAKE, 1, keys.mail(fleet, server)]


def taken(reply: Any) -> list[tuple[Stop, float]]:
    """
    Read what a guard is asked to do, each with the seconds for which its caller waits.

    What it does not understand is left out, and times out.
    """
    found = []
    for left, text in reply or []:
        try:
            fields = json.loads(text)
            if fields.pop("verb") == "stop":
                found.append((_stop(fields), left / 1e3))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return found


def withdrawn(reply: Any) -> set[str]:
    """Read which requests are taken back, by their ids: of what `taken` has given before, or gives now."""
    found = set()
    for _, text in reply or []:
        try:
            fields = json.loads(text)
            if fields["verb"] == "withdraw":
                found.add(printable(str(fields["id"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _stop(fields: dict[str, Any]) -> Stop:
    """Return what is asked, of the types that it must have: it comes from another machine."""
    grace = fields["grace"]
    seconds = None if grace is None else min(max(0.0, float(grace)), _MOST_GRACE)
    texts = {name: printable(str(fields[name])) for name in ("id", "server", "by", "owner")}
    return Stop(
        **texts, generation=int(fields["generation"]), may_take=fields["may_take"] is True, grace=seconds,
        sweep=fields["sweep"] is True,
    )  # fmt: skip


def answer(fleet: str, request: Stop, seen: dict[str, Any]) -> list[Any]:
    """Return the command that tells the caller what the guard saw."""
    text = json.dumps(seen, separators=(",", ":"))
    return ["EVAL", _ANSWER, 1, keys.answer(fleet, request.id), text, _KEPT]


def wait_for_answer(fleet: str, request: Stop, timeout: float) -> list[Any]:
    """Return the command that waits, at most ``timeout`` seconds; see `read_answer`."""
    # A millisecond is for ever on Redis 6.2, where it becomes none by rounding.
    return ["BLPOP", keys.answer(fleet, request.id), f"{max(timeout, 0.01):.3f}"]


def look_for_answer(fleet: str, request: Stop) -> list[Any]:
    """Return the command that takes the answer where it is there; see `read_answer`."""
    return ["LPOP", keys.answer(fleet, request.id)]


def read_answer(reply: Any) -> dict[str, Any] | None:
    """Read what the guard saw; None where nothing came, or what is none."""
    text = reply if isinstance(reply, str) or not reply else reply[1]
    try:
        seen = json.loads(text or "null")
    except (ValueError, RecursionError):
        return {}
    return seen if isinstance(seen, dict) else None

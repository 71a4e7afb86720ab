"""
Wall-clock times as the registry stores them and as people and programs read them; and the clock of uptime.

The latter is chosen here, for leases and whatever else must count the time in which the machine slept.
"""

from __future__ import annotations

import time
from _thread import allocate_lock

__all__ = ["UPTIME", "boottime", "distinct_ms", "iso", "now_ms"]

#: Goes on while the machine sleeps, where there is such a clock; elsewhere that of `time.monotonic`.
UPTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_lock = allocate_lock()
_last = 0
#: By the day since the epoch: a list shows three times of each server, nearly all of today.
_dates: dict[int, str] = {}


def boottime() -> float:
    """Return seconds since the machine was started, those that it slept among them."""
    return time.clock_gettime(UPTIME)


def now_ms() -> int:
    """Return the time in ms since the epoch: for showing and ordering; identity never uses it."""
    return time.time_ns() // 1_000_000


def distinct_ms() -> int:
    """Return the time as `now_ms` does, but no time twice: two threads' claims are told apart by it."""
    global _last
    with _lock:
        _last = max(_last + 1, now_ms())
        return _last


def iso(ms: int | None) -> str | None:
    """Return ``ms`` since the epoch as ISO-8601 UTC with milliseconds; None stays None."""
    if ms is None:
        return None
    day, rest = divmod(ms, 86_400_000)
    date = _dates.get(day)
    if date is None:
        date = _dates[day] = time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))
    seconds, ms = divmod(rest, 1000)
    return f"{date}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}Z"

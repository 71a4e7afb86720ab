"""Wall-clock times as the registry stores them and as people and programs read them."""

from __future__ import annotations

import time
from _thread import allocate_lock

__all__ = ["distinct_ms", "iso", "now_ms"]

_lock = allocate_lock()
_last = 0


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
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms // 1000))}.{ms % 1000:03d}Z"

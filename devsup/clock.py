"""Wall-clock times as the registry stores them and as people and programs read them."""

from __future__ import annotations

import time

__all__ = ["iso", "now_ms"]


def now_ms() -> int:
    """Return the time in ms since the epoch: for showing and ordering; identity never uses it."""
    return time.time_ns() // 1_000_000


def iso(ms: int | None) -> str | None:
    """Return ``ms`` since the epoch as ISO-8601 UTC with milliseconds; None stays None."""
    if ms is None:
        return None
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms // 1000))}.{ms % 1000:03d}Z"

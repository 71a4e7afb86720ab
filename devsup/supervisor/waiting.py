"""
Wait for what another process writes to the registry, without asking it more often than something changes.

A hundred callers may wait for one server: each looks at the files' times every 20 ms (2 us) and reads rows
only when they have moved, or five times a second, since times are as coarse as the kernel's tick.
"""

from __future__ import annotations

import os
import select
import time

from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.paths import Home

__all__ = ["Changes", "Progress", "Ticker", "pause"]

#: Seconds between two looks at the files.
LOOK_EVERY = 0.02
#: Seconds after which the rows are read in any case.
READ_EVERY = 0.2


class Progress(Record):
    """What a start is waiting for, for a person at a terminal."""

    text: str
    log: str | None = None
    #: What each of several is doing.
    lines: list[str] = []  # noqa: RUF012 - a default of a record, never changed


class Changes:
    """Tells whether the registry may have changed since the last time it was asked."""

    def __init__(self, home: Home, *, read_every: float = READ_EVERY) -> None:
        self._every = read_every
        self._paths = (f"{home.registry}-wal", home.registry)
        self._seen: object = None
        self._read_at = 0.0

    def any(self) -> bool:
        """Return True at the first call, after a change, and every ``read_every`` seconds."""
        seen = [self._stat(path) for path in self._paths]
        now = time.monotonic()
        if seen == self._seen and now - self._read_at < self._every:
            return False
        self._seen, self._read_at = seen, now
        return True

    @staticmethod
    def _stat(path: str) -> tuple[int, int, int] | None:
        try:
            status = os.stat(path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


class Ticker:
    """Calls ``on_progress`` at most ten times a second; costs nothing where there is none."""

    def __init__(self, on_progress: Callable[[Progress], None] | None) -> None:
        self._call = on_progress
        self._next = 0.0

    def tick(self, text: str, log: str | None = None) -> None:
        """Tell what is being waited for; ``log`` is the path of the server's log."""
        if self._call is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            self._call(Progress(text, log))

    @property
    def slice(self) -> float:
        """Longest single wait in seconds that keeps the display alive."""
        return 0.1 if self._call is not None else 3600.0


def pause(deadline: float) -> None:
    """Wait until the next look, or the deadline."""
    select.select([], [], [], max(0.0, min(LOOK_EVERY, deadline - time.monotonic())))

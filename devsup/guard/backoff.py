"""
When a server that has ended by itself is run again: pauses that double, and an end to trying.

Pure; times are seconds on the monotonic clock.
"""

from __future__ import annotations

from devsup.records import Record

__all__ = ["FIRST", "LONGEST", "MOST", "STEADY", "WINDOW", "Backoff", "Pause"]

#: Pause before the first try, and the longest one.
FIRST, LONGEST = 0.2, 30.0
#: So many restarts within so many seconds, and it is given up.
MOST, WINDOW = 5, 60.0
#: Seconds of being up after which earlier failures are forgotten.
STEADY = 60.0


class Pause(Record):
    """Which try comes next (1 for the first restart), and the pause before it in seconds."""

    attempt: int
    seconds: float


class Backoff:
    """Counts the restarts of one server; `failed` decides about the next one."""

    def __init__(self) -> None:
        self._attempt = 0
        self._restarts: list[float] = []

    def failed(self, now: float, *, up_since: float | None) -> Pause | None:
        """
        Return the pause before the next try, None where it is given up.

        ``up_since`` is when this run came up, None if it never did.
        """
        if up_since is not None and now - up_since >= STEADY:
            self.forget()
        self._restarts = [at for at in self._restarts if now - at < WINDOW]
        if len(self._restarts) >= MOST:
            return None
        self._attempt += 1
        # A power of two beyond the longest pause is as good as any higher one.
        return Pause(self._attempt, min(FIRST * 2 ** min(self._attempt - 1, 20), LONGEST))

    def restarted(self, now: float) -> None:
        """Count a restart that takes place now."""
        self._restarts.append(now)

    def forget(self) -> None:
        """Begin to count anew: it was well for long enough, or somebody has restarted it."""
        self._attempt, self._restarts = 0, []

"""
Is anybody using the server? Whoever is connected to it, or was since the last look.

A look costs some 2 ms, so it is taken only where the server has an idle timeout. A connection that came and
went between two looks is known by the minute for which the kernel remembers it: looks are closer than that.
Pure but for the look; for the guard's one thread.
"""

from __future__ import annotations

from devsup import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Use"]

#: Seconds between two looks at most, and at least; in between, a part of the timeout.
_LONGEST, _SHORTEST = 15.0, 0.1
_PART = 4


class Use:
    """When a server was last used; times are seconds on the monotonic clock."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.last = 0.0
        self._closed: set[tuple[int, int]] = set()

    def begin(self, now: float, ports: Collection[int]) -> None:
        """Count from ``now``: what was closed before (whoever tried whether it is ready) is no use of it."""
        self.last = now
        _, self._closed = _look(ports, frozenset())

    def look(self, now: float, ports: Collection[int], own: Collection[int]) -> bool:
        """Look who is connected to ``ports``; ``own`` are the ports from which this guard asked itself."""
        is_open, closed = _look(ports, own)
        used = is_open or bool(closed - self._closed)
        self._closed = closed
        if used:
            self.last = now
        return used

    def note(self, at: float) -> None:
        """Take in that somebody asked for it at ``at``."""
        self.last = max(self.last, at)

    def is_over(self, now: float) -> bool:
        """Tell whether nobody has used it for as long as it may be unused."""
        return now - self.last >= self.timeout

    def next_look(self, now: float) -> float:
        """Return when to look again: in time for the end, and before the kernel forgets."""
        pause = max(_SHORTEST, min(self.timeout / _PART, _LONGEST))
        over = self.last + self.timeout
        return min(now + pause, over) if over > now else now + pause


def _look(ports: Collection[int], own: Collection[int]) -> tuple[bool, set[tuple[int, int]]]:
    """Tell whether a connection is open, and which were closed within the last minute."""
    seen = [one for port in ports for one in system.connections(port) if one.peer not in own]
    return any(one.open for one in seen), {(one.port, one.peer) for one in seen if not one.open}

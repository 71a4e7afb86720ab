"""
Moments at which a guard has something to do, by name.

Each fires once; arming it again moves it, and nothing fires that was disarmed meanwhile. For the guard's one
thread, in which alone "meanwhile" can happen: between two timers that are due at once.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Timers"]


class Timers:
    """Named moments on the monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def arm(self, name: str, at: float) -> None:
        """Have ``name`` fire at ``at``, and not at the time that was set before."""
        self._at[name] = at

    def disarm(self, *names: str) -> None:
        """Have none of ``names`` fire."""
        for name in names:
            self._at.pop(name, None)

    def is_armed(self, name: str) -> bool:
        """Tell whether ``name`` is still to fire."""
        return name in self._at

    @property
    def due(self) -> float | None:
        """When the next one fires; None for never."""
        return min(self._at.values(), default=None)

    def fired(self, now: float) -> Iterator[str]:
        """Give each that is due by ``now``, the earliest first; whoever is disarmed on the way is not."""
        while ready := [(at, name) for name, at in self._at.items() if at <= now]:
            _, name = min(ready)
            del self._at[name]
            yield name

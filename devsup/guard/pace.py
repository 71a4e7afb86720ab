"""
How long a guard's loop sleeps: until something is due, and never for no time for ever.

A moment that stays in the past, whatever is done, is a mistake somewhere; it must not cost the user a
processor. So where that comes again and again, what is overdue wakes the loop no more than once a second.
What is due later, and what comes by a descriptor, wakes it as ever. For the guard's one thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Pace"]

#: Turns in a row that were due at once and may have done something all the same.
_MOST = 200
#: Seconds: nothing that the guard does is to be done again so soon. On a busy machine a turn takes longer,
#: and what is to be done next is then due at once, too; but not at the same moment as before.
_QUICK = 0.01
#: Seconds from one turn to the next where something is due for ever.
_REST = 1.0


class Pace:
    """Says for how long to sleep; ``say`` is told, once for each, what is due and never done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._turns = 0
        self._last = self._before = 0.0
        self._told: set[str] = set()

    def sleep(self, moments: Mapping[str, float | None], now: float) -> float | None:
        """
        Return for how many seconds to sleep at ``now``; None for ever.

        ``moments`` are when something is due, by what that is; None for never.
        """
        due = {name: when for name, when in moments.items() if when is not None}
        if not due:
            return None
        soonest = min(due.values())
        if soonest > now:
            self._turns = 0
            return soonest - now
        if now - self._last < _QUICK or soonest == self._before:
            self._turns += 1
        self._last, self._before = now, soonest
        return 0.0 if self._turns < _MOST else self._rest(due, now)

    def _rest(self, due: dict[str, float], now: float) -> float:
        overdue = {name for name, when in due.items() if when <= now}
        for name in sorted(overdue - self._told):
            self._say(f"`{name}` is due all the time and nothing comes of it: it is looked at once a second")
        self._told |= overdue
        return min([_REST, *(when - now for when in due.values() if when > now)])

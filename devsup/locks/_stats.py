"""
What a lock has been through: how often it was taken, how long that took, how long it was held.

Counting a use is one append; sums are made of many at once, and percentiles of the last ones when somebody
asks. The lock that is counted sees to it that one call happens at a time, except for ``fresh.append``. Times
come in as seconds and go out as milliseconds.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["FRESH", "SAMPLES", "Tally", "is_contended", "percentile", "times"]

#: The samples of which percentiles are made.
SAMPLES = 256
#: Uses after which the sums are made.
FRESH = 512
#: Attempts below which a rate says nothing.
_FEW = 4


class Tally:
    """The counts of one lock in this process."""

    __slots__ = (
        *("failures", "fresh", "hold_max", "hold_total", "holds", "uses"),
        *("delayed", "wait_max", "wait_total", "waits"),
    )

    def __init__(self) -> None:
        #: Finished uses; of how many of all it had to be waited for.
        self.uses = self.delayed = self.failures = 0
        self.wait_total = self.wait_max = self.hold_total = self.hold_max = 0.0
        self.waits: deque[float] = deque(maxlen=SAMPLES)
        self.holds: deque[float] = deque(maxlen=SAMPLES)
        #: How long the last uses took, not yet summed.
        self.fresh: list[float] = []

    def waited(self, seconds: float) -> None:
        """Count one who has entered, after so long."""
        if seconds > 0:
            self.delayed += 1
            self.waits.append(seconds)
            self.wait_total += seconds
            self.wait_max = max(self.wait_max, seconds)

    def sum_up(self) -> None:
        """Make the sums of what came since the last time."""
        batch = self.fresh[:]
        del self.fresh[: len(batch)]
        if batch:
            self.uses += len(batch)
            self.hold_total += sum(batch)
            self.hold_max = max(self.hold_max, *batch)
            self.holds.extend(batch)

    def shown(self, inside: int) -> dict[str, Any]:
        """Return the counts as JSON can hold them; ``inside`` are in."""
        self.sum_up()
        entered = self.uses + inside
        # Who did not have to wait is not among the samples.
        part = 1 - 0.05 * entered / self.delayed if self.delayed else 0.0
        late = percentile([*self.waits], part) if part > 0 else 0.0
        return {
            "acquisitions": entered,
            "failures": self.failures,
            "wait_ms": times(self.wait_total, entered, self.wait_max, late),
            "hold_ms": times(self.hold_total, self.uses, self.hold_max, percentile([*self.holds])),
        }


def times(total: float, count: int, most: float, late: float) -> dict[str, float]:
    """Return the three numbers that tell of many times, in ms."""
    return {
        "avg": round(total / count * 1e3, 3) if count else 0.0,
        "max": round(most * 1e3, 3),
        "p95": round(late * 1e3, 3),
    }


def percentile(samples: Sequence[float], part: float = 0.95) -> float:
    """Return the least sample that no less than ``part`` of them do not exceed; 0 where there are none."""
    ordered = sorted(samples)
    if not ordered:
        return 0.0
    rank = -int(-len(ordered) * part // 1)  # rounded up
    return ordered[min(len(ordered), max(1, rank)) - 1]


def is_contended(stats: dict[str, Any]) -> bool:
    """Tell whether more than half of the attempts have failed."""
    failures, attempts = stats["failures"], stats["failures"] + stats["acquisitions"]
    return bool(attempts >= _FEW and failures * 2 > attempts)

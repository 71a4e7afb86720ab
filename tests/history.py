"""
Who held what, when, with which number: does it add up?

Pure. `Held` is what one holder believed: from the answer that gave it the thing up to its own end of it (the
moment before it asked to give it back, else the moment its lease was over, counted from before it asked). All
times are of one clock. It does not matter what was held, so pools and locks are looked over alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Fault", "Held", "faults"]


class Held(NamedTuple):
    """``who`` had ``what`` from ``start`` to ``end``, with the number ``fencing``."""

    what: str
    who: str
    fencing: int
    start: float
    end: float


class Fault(NamedTuple):
    """
    Two that cannot both be true.

    ``kind`` is `overlap`: both had it at a time; or `number`: the later one has no higher number.
    """

    kind: str
    first: Held
    second: Held


def faults(history: Iterable[Held], losses: Sequence[tuple[float, float]] = ()) -> list[Fault]:
    """
    Return everything that is wrong in a history.

    ``losses`` are spans in which the store lost its data. Who held something before may believe in it for
    the rest of its time, while somebody else gets it: that is no overlap, but the number must tell them
    apart.
    """
    found: list[Fault] = []
    by_thing: dict[str, list[Held]] = {}
    for one in history:
        if one.end > one.start:  # whose time was over when the answer came never had it
            by_thing.setdefault(one.what, []).append(one)
    for holds in by_thing.values():
        holds.sort(key=lambda one: (one.start, one.fencing))
        open_: list[Held] = []
        for later in holds:
            open_ = [one for one in open_ if one.end > later.start]
            found += [Fault("overlap", one, later) for one in open_ if not _lost(one, later, losses)]
            open_.append(later)
        highest: Held | None = None
        for later in holds:
            if highest is not None and later.fencing <= highest.fencing:
                found.append(Fault("number", highest, later))
            if highest is None or later.fencing > highest.fencing:
                highest = later
    return found


def _lost(first: Held, second: Held, losses: Sequence[tuple[float, float]]) -> bool:
    return any(first.start <= end and second.start >= begin for begin, end in losses)

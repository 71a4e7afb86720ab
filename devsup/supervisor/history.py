"""
The history of what happened, in its absolute order.

An event's number is given out in the transaction that writes it, and these follow one another: whoever has
read up to a number has seen all below it, and never sees one of them again, however many write meanwhile.
Reads only; any number of readers.
"""

from __future__ import annotations

import time

from devsup.clock import iso
from devsup.errors import UsageError
from devsup.models import Event, EventPage, HistoryEntry
from devsup.registry import Registry
from devsup.supervisor.waiting import Changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from devsup.paths import Home

__all__ = ["read"]

#: Seconds between two looks while nothing happens: at first and at most.
_SOON, _LATER = 0.02, 0.2


def read(
    home: Home,
    project: str | None,
    *,
    after: int | None,
    limit: int,
    wait: float,
    rest: Callable[[float], None],
) -> EventPage:
    """
    Return the next events, or the last ones; with ``wait`` wait so many seconds until there are some.

    :raises UsageError: ``after`` is below 0
    """
    if after is not None and after < 0:
        raise UsageError("`--after` takes the number of an event, from 0", hint="devsup events --help")
    registry, changes = Registry(home), Changes(home)
    deadline, pause = time.monotonic() + wait, _SOON
    while True:
        if changes.any():
            found = registry.event_page(after=after, limit=limit, project=project)
            entries = [_entry(one) for one in found.events]
            if found.missed:
                entries.insert(0, _gap(after or 0, found.missed))
            if entries or time.monotonic() >= deadline:
                return EventPage(entries, found.next_after)
            after = found.next_after  # what came were other projects' events
        elif time.monotonic() >= deadline:
            return EventPage([], after or 0)
        rest(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 2, _LATER)


def _entry(event: Event) -> HistoryEntry:
    return HistoryEntry(**{**event.asdict(), "time": iso(event.time)})


def _gap(after: int, missed: int) -> HistoryEntry:
    """Return an entry that stands for those which are no longer kept."""
    fields: dict[str, Any] = dict.fromkeys(HistoryEntry._fields)
    fields.update(
        seq=after + missed,
        type="truncated",
        reason=f"events {after + 1} to {after + missed} are no longer kept",
        details={"missed": missed},
    )
    return HistoryEntry(**fields)

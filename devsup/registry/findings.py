"""
Findings as events: once when they appear, once when they go.

What is open stands in the events themselves: the last one about a finding says so. Whoever records decides in
the one transaction that writes, so that any number of monitors tell a thing once, also across their restarts.
A finding whose event is no longer kept is told again.
"""

from __future__ import annotations

from devsup.records import Record
from devsup.registry import frozen
from devsup.registry.codec import json_from, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devsup.registry.opening import Database

__all__ = ["Open", "Recorded", "record"]


class Open(Record):
    """A finding: its id, what is the matter, and whom it concerns."""

    id: str
    message: str
    project: str | None
    session: str | None


class Recorded(Record):
    """What a look has changed, and what is open after it."""

    opened: list[Open]
    closed: list[Open]
    open: list[Open]


def record(
    db: Database, seen: Sequence[Open], covered: Callable[[Open], bool], *, since: int, by: str
) -> Recorded:
    """
    Add the events of findings that have appeared, and of ``covered`` ones that are not ``seen`` any more.

    ``since`` is the number of the last event before the look: what somebody has recorded after that is newer
    than what was seen, and stands.
    """
    last: dict[tuple[str, str | None], tuple[int, bool, Open]] = {}
    found = db.execute(
        "SELECT seq, project, session, reason, details FROM events WHERE type = 'finding' ORDER BY seq"
    ).fetchall()
    for seq, project, session, reason, details in found:
        told = json_from(details) or {}
        if isinstance(told.get("id"), str):
            where = None if project is None else plain(project)
            one = Open(told["id"], reason or "", where, session)
            last[one.id, where] = seq, bool(told.get("open")), one
    now = {(one.id, one.project): one for one in seen}
    opened, closed = [], []
    for key, one in now.items():
        seq, is_open, _ = last.get(key, (0, False, one))
        if not is_open and seq <= since:
            opened.append(one)
    for key, (seq, is_open, one) in last.items():
        if is_open and seq <= since and key not in now and covered(one):
            closed.append(one)
    for one, is_open in (*((one, True) for one in opened), *((one, False) for one in closed)):
        about = frozen.About(one.project, one.session, None, None)
        frozen.add_event(
            db, "finding", about, by=by, reason=one.message, details={"id": one.id, "open": is_open}
        )
    gone = {(one.id, one.project) for one in closed}
    still = [one for key, (_, is_open, one) in last.items() if is_open and key not in gone]
    return Recorded(opened, closed, [*still, *opened])

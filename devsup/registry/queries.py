"""
What commands read, each in the transaction of its caller.

Every query of one project or session goes through an index, so that its cost does not depend on how many
other servers there are.
"""

# ruff: noqa: S608
# The statements are put together from names in this package; values are always bound.

from __future__ import annotations

from devsup.models import Events
from devsup.records import Record
from devsup.registry import frozen
from devsup.registry.codec import RUN_COLUMNS, event, plain, row_from, row_from_record, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.models import Event, Row
    from devsup.registry.opening import Database

__all__ = ["Snapshot", "ended", "event_page", "events", "projects", "rows", "rows_of", "snapshot"]

_EVENT = "seq, time, type, session, project, server, generation, pid, by, reason, exit_code, details"
_SELECT = f"SELECT {RUN_COLUMNS}, description FROM runs JOIN servers USING (id) WHERE "


class Snapshot(Record):
    """What `list` shows of one moment: rows, ended ones newest first, and how many live in other projects."""

    rows: list[Row]
    ended: list[Row]
    elsewhere: int


def rows(db: Database, where: str, values: tuple[object, ...]) -> list[Row]:
    """Return the rows of a WHERE clause."""
    return [row_from(one, one[-1]) for one in db.execute(_SELECT + where, values).fetchall()]


def rows_of(db: Database, *, scope: str | None = None, project: str | None = None) -> list[Row]:
    """Return the rows of a scope and project, by project and session, a live one before one that crashed."""
    where, values = _where(project=project, scope=scope)
    return rows(db, f"{where} ORDER BY project, session, live DESC", values)


def projects(db: Database) -> list[str]:
    """Return the projects of all servers that are there or have ended."""
    found = db.execute("SELECT project FROM runs UNION SELECT project FROM history ORDER BY 1").fetchall()
    return [plain(one) for (one,) in found]


def snapshot(db: Database, *, project: str | None, past: bool) -> Snapshot:
    """Return what `list` shows; ``past`` adds the ended servers."""
    elsewhere = 0
    if project is not None:
        [(elsewhere,)] = db.execute(
            "SELECT (SELECT count(*) FROM runs WHERE live = 1)"
            " - (SELECT count(*) FROM runs WHERE project = ? AND live = 1)",
            (text(project),),
        ).fetchall()
    before = ended(db, limit=frozen.HISTORY, project=project) if past else []
    return Snapshot(rows_of(db, project=project), before, elsewhere)


def ended(db: Database, *, limit: int, **values: object) -> list[Row]:
    """Return rows of the history, newest first."""
    where, given = _where(**values)
    found = db.execute(f"SELECT record FROM history WHERE {where} ORDER BY seq DESC LIMIT ?", (*given, limit))
    return [row_from_record(one) for (one,) in found.fetchall()]


def events(db: Database, *, after: int, limit: int, project: str | None) -> list[Event]:
    """Return events after a number, oldest first."""
    where, given = _where(project=project)
    found = db.execute(
        f"SELECT {_EVENT} FROM events WHERE seq > ? AND {where} ORDER BY seq LIMIT ?", (after, *given, limit)
    )
    return [event(one) for one in found.fetchall()]


def event_page(db: Database, *, after: int | None, limit: int, project: str | None) -> Events:
    """Return a page of events after a number; without one the last ``limit``."""
    where, given = _where(project=project)
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchall()
    newest = found[0][0] if found else 0
    if after is None:
        last = db.execute(
            f"SELECT {_EVENT} FROM events WHERE {where} ORDER BY seq DESC LIMIT ?", (*given, limit)
        ).fetchall()
        return Events([event(one) for one in reversed(last)], newest, 0)
    [(oldest,)] = db.execute("SELECT min(seq) FROM events").fetchall()
    # 0 asks for all there is: who has read nothing yet has missed nothing.
    missed = max(0, (newest + 1 if oldest is None else oldest) - after - 1) if after else 0
    page = events(db, after=after, limit=limit, project=project)
    # Numbers between a short page and the newest are other projects'; beyond the newest is no place to be.
    return Events(page, page[-1].seq if len(page) == limit else newest, missed)


def _where(**values: object) -> tuple[str, tuple[object, ...]]:
    given = {name: value for name, value in values.items() if value is not None}
    return " AND ".join(f"{name} = ?" for name in given) or "true", tuple(
        text(value) if isinstance(value, str) else value for value in given.values()
    )

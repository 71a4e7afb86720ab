"""
Pages of a server's log, also across its generations and after its end: text, matching lines, or errors.

Readers hold nobody up. What only errors and patterns need is loaded with the first of them.
"""

from __future__ import annotations

import os
import time

from devsup import logs
from devsup.errors import NotFound, UsageError
from devsup.models import ADOPTED, LogPage, Row
from devsup.records import Record
from devsup.registry import Registry
from devsup.supervisor.view import OVER, Life, life
from devsup.supervisor.waiting import Changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.paths import Home

__all__ = ["Wanted", "read_page", "since_cursor"]

#: Seconds between two looks at a server while nothing is written, neither to its log nor to the registry; an
#: end that a guard sees is written there.
_LOOK_EVERY = 1.0
#: Seconds between two looks at what is new but not yet what was asked for.
_AGAIN = 0.1


class Wanted(Record):
    """What of a log is asked for, see `Supervisor.logs`."""

    lines: int | None = None
    after: str | None = None
    max_bytes: int | None = None
    errors: bool = False
    grep: str | None = None


def read_page(
    home: Home,
    row: Row,
    alive: Life,
    wanted: Wanted,
    *,
    wait: float,
    rest: Callable[[float], None] = time.sleep,
) -> LogPage:
    """Return a page; with ``wait`` block so many seconds at most until there is something new or the end."""
    deadline = time.monotonic() + wait
    if row.reason == ADOPTED and not os.path.isfile(row.log):
        from devsup.apps import nextlock

        running = nextlock.running(row.folder) if row.folder is not None else None
        if running is not None and running["log"]:  # written after it was adopted
            row = row.replace(log=running["log"])
    if row.reason == ADOPTED and not os.path.isfile(row.log):
        raise NotFound(
            f"no log of `{row.session}` is known: what it prints goes where it was started",
            hint=f"devsup restart {row.app or row.session}",
        )
    waited = False
    while True:
        page = _page(home, row, wanted, ended=alive in OVER)
        something = page.text or page.errors or page.ended or page.reset
        left = deadline - time.monotonic()
        if something or left <= 0:
            return page.replace(session=row.session)
        if waited and page.next_cursor == wanted.after:
            # What is new there is nothing for this page, and ends the next wait at once: a prompt, when whole
            # lines are looked for, or an error that is still being printed.
            rest(min(_AGAIN, left))
        waited = True
        _, offset = logs.parse_cursor(page.next_cursor)
        wanted = wanted.replace(after=page.next_cursor)
        watch = _Watch(home, row)
        logs.wait_for_more(row.log, offset, deadline=deadline, ended=watch.ended, rest=rest)
        row, alive = watch.row, watch.alive


def _page(home: Home, row: Row, wanted: Wanted, *, ended: bool) -> LogPage:
    def older(generation: int) -> str | None:
        path = home.log(row.project, row.session, generation)
        return path if os.path.isfile(path) else None

    if not wanted.errors and wanted.grep is None:
        return logs.page(
            row.log,
            generation=row.generation,
            ended=ended,
            after=wanted.after,
            lines=wanted.lines,
            max_bytes=wanted.max_bytes,
            older=older,
        )
    offset, reset = None, False
    if wanted.after is not None:
        of, offset = logs.parse_cursor(wanted.after)
        if of != row.generation:  # what an earlier generation has printed is over with it
            offset, reset = 0, True
    if wanted.errors:
        from devsup.logs.errors import collect

        page = collect(row.log, offset, generation=row.generation, root=row.cwd, ended=ended)
    else:
        from devsup.logs import grep

        page = grep.page(
            row.log,
            offset,
            grep.compiled(wanted.grep or ""),
            generation=row.generation,
            ended=ended,
            lines=wanted.lines if wanted.lines is not None or wanted.after else logs.DEFAULT_LINES,
            max_bytes=wanted.max_bytes,
        )
    return page.replace(reset=page.reset or reset)


def since_cursor(row: Row, since: str, notes: list[str]) -> str:
    """
    Return the cursor from which on a log was written ``since`` a time or for a duration.

    What cannot be told is added to ``notes``, and then more is shown rather than less.

    :raises UsageError: it is neither
    """
    from devsup import logtimes

    when = _moment(since)
    offset = logtimes.offset_at(row.log, when)
    if offset is None:
        offset = 0
        try:
            status = os.stat(row.log)
        except OSError:
            pass  # the page says so
        else:
            if status.st_mtime < when:
                _, offset = logs.parse_cursor(logs.end_of(row.log, row.generation))
        if not offset:
            notes.append("nobody noted when this log was written: all of it is shown")
    return logs.format_cursor(row.generation, offset)


def _moment(text: str) -> float:
    from datetime import datetime

    from devsup import durations

    try:
        return time.time() - durations.parse(text)
    except ValueError:
        pass
    try:
        if len(text) <= 8 and ":" in text:
            text = f"{datetime.now().astimezone():%Y-%m-%d}T{text.zfill(5) if len(text) < 6 else text}"
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        given = text if len(text) <= 40 else f"{text[:40]}…"
        raise UsageError(
            f"`--since` is `{given}`, neither a duration such as `10m` nor a time such as `14:30` or "
            "`2026-01-31T14:30:00Z`",
            hint="devsup logs --help",
        ) from None


class _Watch:
    """Tells whether a server has ended; looks at it and its row where these may have changed."""

    def __init__(self, home: Home, row: Row) -> None:
        self._registry = Registry(home)
        self._changes = Changes(home, read_every=_LOOK_EVERY)
        self.row = row
        self.alive = life(row)

    def ended(self) -> bool:
        """Tell whether nothing more will be written to this generation's log."""
        if not self._changes.any():
            return False
        self.alive = life(self.row)
        if self.alive in (Life.LIVE, Life.ORPHANED, Life.UNCLAIMED, Life.FOREIGN):
            now = self._registry.row(self.row.id)
            if now is not None and now.generation == self.row.generation:
                self.row = now
                return False
        newer = self._registry.find(self.row.scope, self.row.project, self.row.session)
        if newer is not None and newer.generation != self.row.generation:
            self.row, self.alive = newer, life(newer)
            return True
        self.alive = Life.ENDED
        return True

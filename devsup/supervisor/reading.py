"""Pages of a server's log, also across its generations and after its end. Readers hold nobody up."""

from __future__ import annotations

import os
import time

from devsup import logs
from devsup.errors import NotFound
from devsup.models import ADOPTED, LogPage, Row
from devsup.registry import Registry
from devsup.supervisor.view import Life, life
from devsup.supervisor.waiting import Changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.paths import Home

__all__ = ["read_page"]

#: Seconds between two looks at a server while nothing is written, neither to its log nor to the registry; an
#: end that a guard sees is written there.
_LOOK_EVERY = 1.0


def read_page(
    home: Home,
    row: Row,
    alive: Life,
    *,
    lines: int | None,
    after: str | None,
    max_bytes: int | None,
    wait: float,
    rest: Callable[[float], None] = time.sleep,
) -> LogPage:
    """Return a page; with ``wait`` block so many seconds at most until there is something new or the end."""
    deadline = time.monotonic() + wait

    def older(generation: int) -> str | None:
        path = home.log(project, session, generation)
        return path if os.path.isfile(path) else None

    project, session = row.project, row.session
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
    while True:
        page = logs.page(
            row.log,
            generation=row.generation,
            ended=alive in (Life.ENDED, Life.DEAD),
            after=after,
            lines=lines,
            max_bytes=max_bytes,
            older=older,
        )
        if page.text or page.ended or page.reset or time.monotonic() >= deadline:
            return page
        _, offset = logs.parse_cursor(page.next_cursor)
        after = page.next_cursor
        watch = _Watch(home, row)
        logs.wait_for_more(row.log, offset, deadline=deadline, ended=watch.ended, rest=rest)
        row, alive = watch.row, watch.alive


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

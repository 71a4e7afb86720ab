"""`devsup events`: what happened, in its absolute order."""

from __future__ import annotations

from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from devsup.models import EventPage, HistoryEntry
    from devsup.supervisor import Supervisor

__all__ = ["follows", "handle", "lines", "pages"]

#: Seconds that a follower waits for something new before it asks again.
_FOLLOW_WAIT = 30.0


def handle(supervisor: Supervisor, options: dict[str, Any], _: object) -> tuple[EventPage, None]:
    """Return one page."""
    return _page(supervisor, options, options["after"]), None


def follows(options: dict[str, Any]) -> bool:
    """Give one answer after another with `--follow`."""
    return bool(options["follow"])


def pages(
    supervisor: Supervisor, options: dict[str, Any], rest: Callable[[float], None]
) -> Iterator[EventPage]:
    """Give a page, and all that comes."""
    page = _page(supervisor, options, options["after"])
    while True:
        if page.events:
            yield page
        page = _page(supervisor, options, page.next_after, wait=_FOLLOW_WAIT, rest=rest)


def lines(page: EventPage) -> list[str]:
    """Return one line for each event."""
    return plain.aligned([_cells(one) for one in page.events])


def _page(supervisor: Supervisor, options: dict[str, Any], after: int | None, **how: Any) -> EventPage:
    return supervisor.events(after=after, limit=options["limit"], everywhere=options["everywhere"], **how)


def _cells(one: HistoryEntry) -> tuple[str, ...]:
    told = [one.reason or "", *(f"{name}={value}" for name, value in (one.details or {}).items())]
    if one.exit_code is not None and f"exit code {one.exit_code}" not in told[0]:
        told.insert(0, f"exit {one.exit_code}")
    return (
        str(one.seq),
        one.time or "-",
        one.type,
        one.session or "-",
        "-" if one.pid is None else f"pid {one.pid}",
        f"by {one.by}" if one.by else "-",
        " ".join(word for word in told if word),
    )

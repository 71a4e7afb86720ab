"""
Pages of logs that go on: of one server until it ends, of several side by side until all have.

For the main thread of one command. Each server is asked for what is new since its last page, so one that is
slow to answer, restarted or gone holds no other up.
"""

from __future__ import annotations

from devsup.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from devsup.models import LogPage
    from devsup.supervisor import Supervisor

__all__ = ["pages"]

#: Seconds that a follower of one server waits for something new before it asks again.
FOLLOW_WAIT = 30.0
#: Pauses between two rounds over several servers, in seconds: growing while nothing comes.
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 0.4


def pages(
    supervisor: Supervisor, options: dict[str, Any], rest: Callable[[float], None]
) -> Iterator[LogPage]:
    """
    Give each page that has something to say.

    :raises UsageError: the options do not go together
    """
    if options["wait"] is not None:
        raise UsageError("`--follow` waits by itself: leave out `--wait`", hint="devsup logs --help")
    targets = list(dict.fromkeys(options["targets"]))
    if len(targets) == 1:
        yield from _one(supervisor, targets[0], options, rest)
        return
    if options["after"] is not None:
        raise UsageError(
            "a cursor belongs to one server: follow one, or leave out `--after`", hint="devsup logs --help"
        )
    yield from _several(supervisor, targets, options, rest)


def _one(
    supervisor: Supervisor, target: str, options: dict[str, Any], rest: Callable[[float], None]
) -> Iterator[LogPage]:
    page = _first(supervisor, target, options)
    while True:
        if page.text or page.errors or page.ended or page.reset:
            yield page
        if page.ended:
            return
        page = _next(supervisor, target, options, page, wait=FOLLOW_WAIT, rest=rest)


def _several(
    supervisor: Supervisor, targets: list[str], options: dict[str, Any], rest: Callable[[float], None]
) -> Iterator[LogPage]:
    latest = {target: _first(supervisor, target, options) for target in targets}
    for page in latest.values():
        if page.text or page.errors:
            yield page
    pause = _FIRST_PAUSE
    while latest := {target: page for target, page in latest.items() if not page.ended}:
        rest(pause)
        pause = min(pause * 1.5, _LAST_PAUSE)
        for target, page in latest.items():
            latest[target] = newer = _next(supervisor, target, options, page, wait=0.0, rest=rest)
            if newer.text or newer.errors or newer.ended or newer.reset:
                pause = _FIRST_PAUSE
                yield newer


def _first(supervisor: Supervisor, target: str, options: dict[str, Any]) -> LogPage:
    return supervisor.logs(
        target,
        lines=options["lines"],
        after=options["after"],
        max_bytes=options["max_bytes"],
        errors=options["errors"],
        grep=options["grep"],
        since=options["since"],
    )


def _next(
    supervisor: Supervisor,
    target: str,
    options: dict[str, Any],
    page: LogPage,
    *,
    wait: float,
    rest: Callable[[float], None],
) -> LogPage:
    return supervisor.logs(
        target,
        lines=None,
        after=page.next_cursor,
        max_bytes=options["max_bytes"],
        wait=wait,
        errors=options["errors"],
        grep=options["grep"],
        rest=rest,
    )

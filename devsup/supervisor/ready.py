"""
How a start comes out: ready, ended first, stopped meanwhile, or not ready in time.

Shared by the caller that started the server and by those that joined it, so that all are told the same.
"""

from __future__ import annotations

import re
import time

from devsup import identity
from devsup.errors import ExitedEarly, InternalError, NotReady, StoppedMeanwhile
from devsup.models import Row, StartResult, State
from devsup.supervisor.view import OVER, Life, life, look, server_of, trouble
from devsup.supervisor.waiting import Changes, pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from devsup.registry import Registry
    from devsup.supervisor.waiting import Ticker

__all__ = [
    "conclude",
    "ended_error",
    "follow",
    "follow_down",
    "follow_guarded",
    "remind",
    "stopped_before",
    "tail",
]

_UP = (State.RUNNING, State.READY, State.UNHEALTHY)


#: How far up in a log the cause of an end is looked for.
_CAUSE_LINES, _CAUSE_BYTES = 200, 32_768
#: Events among which one of a moment ago is looked for.
_LAST_EVENTS = 200


def tail(path: str) -> str:
    """Return the end of a log as errors carry it."""
    from devsup import logs  # only what goes wrong has a log to show

    return logs.tail_text(path)


def follow(
    registry: Registry,
    row: Row,
    *,
    deadline: float,
    ticker: Ticker,
    until_recorded: bool = False,
    restarted: bool = False,
    failures: Sequence[Sequence[str]] | None = None,
) -> Row | None:
    """
    Wait until ``row``'s server is up, for a caller that hears of it only through the registry.

    Returns None where whoever was to bring it up has died or given up: the caller looks again. With
    ``restarted`` only a later generation counts.

    :raises StoppedMeanwhile, ExitedEarly, NotReady: as `conclude`
    """
    changes = Changes(registry.home)
    while True:
        if changes.any():
            now, alive = look(registry, row.id)
            if now is None:
                return None if _was_given_up(registry, row) else _from_history(registry, row, failures)
            if now.generation != row.generation:
                restarted = False
            if alive in (Life.DEAD, Life.ORPHANED):
                return None
            if alive is Life.ENDED:
                raise ended_error(now, failures)
            remind(now)
            if not restarted and (now.state in _UP or (until_recorded and now.leader is not None)):
                return now
            if now.state is State.STOPPING:
                restarted = False
        if time.monotonic() >= deadline:
            raise _not_ready(registry, row)
        ticker.tick(f"waiting for `{row.session}`", row.log)
        pause(deadline)


def remind(row: Row) -> None:
    """Ask the guard again for what somebody claimed who has died since, perhaps before asking."""
    if row.stop is not None and row.guard is not None and identity.is_gone(row.stop.by):
        from devsup.guard.spawn import LOOK

        identity.signal(row.guard, LOOK)


def follow_guarded(registry: Registry, row: Row, *, deadline: float, ticker: Ticker) -> Row:
    """
    Wait until ``row``'s server serves, for a caller that starts nothing itself.

    A server whose listener is just being replaced is not there, whatever its row says.
    """
    name = row.app or row.session
    if row.guard is not None:
        from devsup.guard.spawn import LOOK

        identity.signal(row.guard, LOOK)
    while True:
        found = follow(registry, row, deadline=deadline, ticker=ticker)
        if found is None:
            now = registry.row(row.id)
            verb = "start" if now is not None and life(now) is Life.ORPHANED else "restart"
            raise NotReady(
                f"nobody looks after `{row.session}` any more: whoever started it, or its guard, has died",
                hint=f"devsup {verb} {name}",
            )
        server = server_of(found, life(found))
        if server.state in (State.RUNNING, State.READY):
            return found
        if time.monotonic() >= deadline:
            raise NotReady(
                f"{trouble(row, server)} (pid {server.pid})",
                hint=f"devsup restart {name}",
                details={"log_tail": tail(found.log)},
                data=StartResult(server, reused=True, waited_ms=0, notes=[]),
            )
        ticker.tick(f"waiting for `{row.session}`", row.log)
        pause(deadline)


def follow_down(
    registry: Registry, row: Row, alive: Life, *, deadline: float, ticker: Ticker
) -> tuple[Row, Life]:
    """
    Wait until nothing of ``row``'s server is left.

    :raises NotReady: it still runs at the deadline
    """
    changes = Changes(registry.home)
    while alive not in OVER:
        if time.monotonic() >= deadline:
            raise NotReady(
                f"`{row.session}` still runs ({row.state.value})",
                hint=f"devsup stop {row.app or row.session}",
            )
        ticker.tick(f"waiting for the end of `{row.session}`", row.log)
        pause(deadline)
        if changes.any():
            now, alive = look(registry, row.id)
            if now is None or now.generation != row.generation:
                ended = [
                    one for one in registry.ended(id=row.id, limit=50) if one.generation == row.generation
                ]
                return (ended[0] if ended else row.replace(state=State.STOPPED)), Life.ENDED
            row = now
            remind(row)
    return row, alive


def conclude(registry: Registry, row: Row, *, wait: bool, failures: Sequence[Sequence[str]]) -> Row | None:
    """
    Return the row of a server that its own starter has waited for; None if its guard has died.

    :raises StoppedMeanwhile: somebody stopped it
    :raises ExitedEarly: it ended before it was ready
    :raises NotReady: it goes on starting
    """
    now, alive = look(registry, row.id)
    if now is None:
        return _from_history(registry, row, failures)
    if alive is Life.ENDED:
        raise ended_error(now, failures)
    if alive in (Life.DEAD, Life.ORPHANED):
        return None
    if wait and now.state in (State.STARTING, State.RESTARTING):
        raise _not_ready(registry, now)
    if now.state is State.STOPPING:
        raise StoppedMeanwhile(
            f"`{row.session}` is being stopped", hint=f"devsup start {row.app or row.session}"
        )
    return now


def _was_given_up(registry: Registry, row: Row) -> bool:
    """Tell whether ``row`` was a reservation whose caller was cancelled or killed: nobody has stopped it."""
    if registry.ended(id=row.id, limit=1):
        return False
    events = registry.event_page(after=None, limit=_LAST_EVENTS, project=row.project).events
    return not any(one.type == "stopping" and one.server == row.id for one in events)


def _from_history(registry: Registry, row: Row, failures: Sequence[Sequence[str]] | None) -> Row:
    ended = registry.ended(id=row.id, limit=1)
    if not ended:
        raise stopped_before(row)
    last = ended[0]
    if last.state is State.EXITED:
        return last
    raise ended_error(last, failures)


def stopped_before(row: Row) -> StoppedMeanwhile:
    """Return the error that tells that ``row`` was stopped while it was only a reservation."""
    return StoppedMeanwhile(
        f"`{row.session}` was stopped before it ran", hint=f"devsup start {row.app or row.session}"
    )


def ended_error(
    row: Row, failures: Sequence[Sequence[str]] | None = None
) -> StoppedMeanwhile | ExitedEarly | InternalError:
    """Return the error that tells how the server of ``row`` ended; ``failures`` are those of its kind."""
    name = row.app or row.session
    server = server_of(row, Life.ENDED)
    if row.state is State.STOPPED:
        return StoppedMeanwhile(
            f"`{row.session}` was stopped meanwhile{_LIFETIMES.get(row.reason or '', '')}",
            hint=f"devsup restart {name}",
            details={"server": server},
        )
    text = tail(row.log)
    cause = _cause(row, text, failures)
    if row.signal is None and row.exit_code is None:  # nobody has seen its end: what is known is the reason
        how, because, hint = "", cause or row.reason, f"devsup why {name}"
    else:
        how = f", with signal {row.signal}" if row.signal is not None else f", with exit code {row.exit_code}"
        because, hint = cause, f"devsup logs {name}"
    return ExitedEarly(
        f"`{row.session}` ended before it was ready{how}{_gave_up(row)}"
        + (f": {because}" if because else ""),
        hint=hint,
        details={
            "exit_code": row.exit_code,
            "signal": row.signal,
            "log_tail": text,
            "cause": cause,
            "server": server,
        },
    )


#: Why a server was stopped that nobody stopped.
_LIFETIMES = {
    "ttl": ": its `ttl` was over",
    "idle": ": nobody used it",
    "parent_gone": ": the process of `--with-parent` has ended",
    "fleet": ": another host asked for it",
    "lease_lost": ": its lease in the fleet was lost",
}


def _gave_up(row: Row) -> str:
    """Return that it was run again and again, where it was."""
    tries, _, _ = (row.reason or "").partition(":")
    return f"; {tries}" if tries.startswith("gave up") else ""


def _cause(row: Row, text: str, failures: Sequence[Sequence[str]] | None) -> str | None:
    from devsup import logs

    known = _failures_of(row.kind) if failures is None else failures
    # The end first, since a server that was run again has what ended it before in the same log; then further
    # up: the stack of Node.js may be longer than the end.
    for part in (text, logs.tail_text(row.log, lines=_CAUSE_LINES, max_bytes=_CAUSE_BYTES)):
        for pattern, cause in known:
            if re.search(pattern, part):
                return cause
    if row.exit_code == 127:
        return "its command was not found"
    if row.signal == 9:
        return "it was killed; out of memory is the usual reason"
    return None


def _failures_of(kind: str) -> Sequence[Sequence[str]]:
    # Only a crash that somebody waits through needs them: the others do not pay for loading the kinds.
    from devsup.apps import commands
    from devsup.apps.presets import COMMAND, KINDS

    failures: Sequence[Sequence[str]] = commands.probe(KINDS.get(kind, COMMAND), None)["failures"]
    return failures


def _not_ready(registry: Registry, row: Row) -> NotReady:
    now = registry.row(row.id) or row
    server = server_of(now, life(now))
    name = row.app or row.session
    text = tail(now.log)
    # A server that watches its files does not end by an error in one of them: it waits for a better one.
    cause = _cause(now, text, None)
    return NotReady(
        f"`{row.session}` is not ready yet; it goes on starting (pid {server.pid})"
        + (f"; its log says: {cause}" if cause else ""),
        hint=f"devsup wait {name}",
        details={"log_tail": text, "cause": cause},
        data=StartResult(server, reused=False, waited_ms=0, notes=[]),
    )

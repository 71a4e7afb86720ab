"""The public record of a row. Pure: what is true of it at the moment is looked at by whoever asks."""

from __future__ import annotations

from devsup import masking
from devsup.clock import iso
from devsup.models import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.models import Row, State

__all__ = ["published", "server"]


def server(
    row: Row,
    state: State,
    *,
    pid: int | None,
    guard_pid: int | None,
    port: int | None,
    url: str | None,
    foreign: bool = False,
) -> Server:
    """Return the record of ``row``, with what was seen of it; ``port`` is None where it does not listen."""
    return Server(
        id=row.id,
        generation=row.generation,
        session=row.session,
        app=row.app,
        kind=row.kind,
        project=row.project,
        cwd=row.cwd,
        command=row.command,
        state=state,
        pid=pid,
        guard_pid=guard_pid,
        port=port if port is not None else row.asked_port,
        url=url,
        started_at=iso(row.started_at) or "",
        ready_at=iso(row.ready_at),
        last_used_at=iso(row.last_used_at),
        exit_code=row.exit_code,
        signal=row.signal,
        log=row.log,
        owner=row.owner,
        scope="foreign" if foreign else "here",
    )


def published(row: Row, state: State, *, pid: int | None, url: str | None) -> dict[str, Any]:
    """Return its fields as JSON values for others than this user: as every answer, without secrets."""
    guard_pid = row.guard.pid if row.guard is not None else None
    shown: dict[str, Any] = masking.value(
        server(row, state, pid=pid, guard_pid=guard_pid, port=row.port, url=url)
    )
    return {**shown, "state": state.value}

"""
What a caller means by `web`, `dev_server_web`, `4242` or `:3000`: one server, or a clear reason why none.

Reads only. A name means this project's server, also one of another machine or container where there is no
other; a number or port means any server of this scope.
"""

from __future__ import annotations

import os

from devsup import identity, masking, ports, system
from devsup import tree as trees
from devsup.errors import Ambiguous, NotFound, NotOurs, UsageError
from devsup.models import Row
from devsup.records import Record
from devsup.supervisor.view import Life, life, tree_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.models import Identity
    from devsup.registry import Registry

__all__ = ["Target", "find"]


#: The largest `pid_t`.
_PID_MAX = 2**31 - 1
_PID_DIGITS = len(str(_PID_MAX))
_ID_LENGTH = 12


class Target(Record):
    """What a target's text stands for: a row that is in force, or the latest one that has ended."""

    text: str
    row: Row
    ended: bool
    notes: list[str]


def find(registry: Registry, project: str, text: str, *, everywhere: bool = False) -> Target:
    """
    Return what ``text`` means.

    :raises NotFound: nothing that devsup knows or ever knew
    :raises NotOurs: a living process or listener that devsup did not start
    :raises Ambiguous: a name that several projects have, with ``everywhere``
    """
    if not text:
        raise UsageError("an empty target", hint="devsup list")
    if text.isascii() and text.isdecimal():
        return _by_number(registry, text)
    if text.startswith(":"):
        return _by_port(registry, project, text)
    return _by_name(registry, project, text, everywhere=everywhere)


def _by_number(registry: Registry, text: str) -> Target:
    if len(text) <= _PID_DIGITS and int(text) <= _PID_MAX:
        return _by_pid(registry, text, int(text))
    # An id is hexadecimal, and now and then it has no letter.
    row = registry.row(text) if len(text) <= _ID_LENGTH else None
    if row is None:
        raise UsageError(
            f"`{text if len(text) <= _ID_LENGTH else text[:_ID_LENGTH] + '…'}` is no pid: "
            f"the highest is {_PID_MAX}",
            hint="devsup list --everywhere",
        )
    return Target(text, row, ended=False, notes=[])


def _by_name(registry: Registry, project: str, text: str, *, everywhere: bool) -> Target:
    scope = identity.here().key
    found = registry.rows(project=None if everywhere else project)
    rows = [row for row in found if row.scope == scope]
    named = [row for row in rows if text in (row.app, row.session, row.id)]
    own = [row for row in named if row.project == project]
    if len(own) == 1 or len(named) == 1:
        return Target(text, (own or named)[0], ended=False, notes=[])
    if named:
        raise Ambiguous(
            f"`{text}` runs in {len(named)} projects",
            hint=f"devsup stop {_pid(named[0]) or named[0].id + ' --everywhere'}",
            details={
                "candidates": [
                    {"session": row.session, "project": row.project, "id": row.id, "pid": _pid(row)}
                    for row in named
                ]
            },
        )
    foreign = [row for row in found if row.scope != scope and text in (row.app, row.session, row.id)]
    if foreign:
        # `list` shows it, so it has an answer too: what may live before what is lost, then the youngest.
        row = max(foreign, key=lambda row: (identity.scope_relation(row.scope) == "foreign", row.started_at))
        return Target(text, row, ended=False, notes=[])
    for row in registry.ended(project=project, limit=200):
        if text in (row.app, row.session, row.id):
            return Target(text, row, ended=True, notes=[])
    known = sorted({row.app or row.session for row in rows})
    what = f"; what runs here: {', '.join(f'`{name}`' for name in known)}" if known else ""
    raise NotFound(f"no server `{text}` in `{project}`{what}", hint="devsup list --everywhere")


def _by_pid(registry: Registry, text: str, pid: int) -> Target:
    rows = registry.rows(scope=identity.here().key)
    holder = None if pid < 1 else identity.of(pid)
    for row in rows:
        for who in (row.leader, row.guard):
            if who is not None and who.pid == pid and (holder is None or holder == who):
                return Target(text, row, ended=False, notes=[])
    if holder is not None:
        owner = _member_of(rows, pid)
        if owner is not None:
            name = owner.app or owner.session
            return Target(
                text, owner, ended=False, notes=[f"pid {pid} belongs to `{name}` (pid {_pid(owner)})"]
            )
    ended = registry.ended(pid=pid)
    now = next((row for row in rows if ended and row.id == ended[0].id), None)
    if now is not None:
        return _followed(text, pid, now, holder)
    if ended:
        notes: list[str] = (
            [f"pid {pid} is now another process, which devsup did not start"] if holder is not None else []
        )
        return Target(text, ended[0], ended=True, notes=notes)
    if holder is not None or _exists(pid):
        command = masking.title(system.cmdline(pid)) or "unknown"
        raise NotOurs(
            f"pid {pid} (`{masking.brief(command)}`) was not started by devsup and is left alone",
            hint="devsup list --everywhere",
            details={"pid": pid, "command": command, "cwd": system.cwd(pid)},
        )
    raise NotFound(f"no process {pid}, and devsup never had one", hint="devsup list --everywhere")


def _followed(text: str, pid: int, row: Row, holder: Identity | None) -> Target:
    """Return the server that had ``pid`` before it was restarted, and has another one now."""
    name = row.app or row.session
    current = row.leader.pid if row.leader is not None and not identity.is_gone(row.leader) else None
    what = f"`{name}`, which was restarted and is {f'pid {current}' if current else row.state.value} now"
    if holder is not None:
        # Whoever names this number may well mean who has it now.
        raise NotOurs(
            f"pid {pid} is now another process, which devsup did not start; it was that of {what}",
            hint=f"devsup status {current or row.id}",
            details={"pid": pid, "server": row.id, "now": current},
        )
    return Target(text, row, ended=False, notes=[f"pid {pid} was that of {what}"])


def _by_port(registry: Registry, project: str, text: str) -> Target:
    digits = text[1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5 and 0 < int(digits) < 65536):
        given = text if len(text) <= 12 else f"{text[:12]}…"
        raise UsageError(
            f"`{given}` is no port: a number from 1 to 65535, as in `:3000`", hint="devsup list --everywhere"
        )
    port = int(digits)
    rows = registry.rows(scope=identity.here().key)
    holder = ports.holder(port, rows)
    if holder is not None:
        owner = next((row for row in rows if row.id == holder.ours), None)
        if owner is None and holder.pid is not None:
            owner = _member_of(rows, holder.pid)
        if owner is not None:
            return Target(text, owner, ended=False, notes=[])
        folder = system.cwd(holder.pid) if holder.pid is not None else None
        here = folder is not None and f"{folder}/".startswith(f"{project}/")
        raise NotOurs(
            f"port {port} belongs to {holder.name}, not started by devsup",
            hint=f"devsup adopt :{port}" if here else "devsup list --everywhere",
            details={"holder": holder.details()},
        )
    for row in rows:
        if port in (row.port, row.asked_port):
            return Target(text, row, ended=False, notes=[])
    for row in registry.ended(limit=200):
        if row.port == port:
            return Target(text, row, ended=True, notes=[])
    raise NotFound(f"nobody listens on port {port}", hint="devsup list --everywhere")


def _member_of(rows: list[Row], pid: int) -> Row | None:
    """Return the server that a living process belongs to, by its marker or its session."""
    marker = trees.marker_of(pid)
    if marker is not None:
        row = next((row for row in rows if row.id == marker.id), None)
        return (
            row if row is not None and life(row) in (Life.LIVE, Life.ORPHANED) and _is_own(row, pid) else None
        )
    try:
        info = system.process(pid)
    except PermissionError:
        return None
    if info is None:
        return None
    # One that we did not start leads neither session nor group: it is above its processes.
    above = {info.sid, info.pgid, *trees.above(pid)} - {0, 1}
    for row in rows:
        if row.leader is not None and row.leader.pid in above and _is_own(row, pid):
            return row
    return None


def _is_own(row: Row, pid: int) -> bool:
    return trees.inside(tree_of(row), pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    info = system.process(pid)
    return info is not None and info.state not in "ZX"


def _pid(row: Row) -> int | None:
    return row.leader.pid if row.leader is not None else None

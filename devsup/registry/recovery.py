"""
The rows of a registry that was lost, from the processes that live and from what they were asked to run.

Guards, servers and their descendants carry a marker (home, project, session, id, generation); ``servers/<id>.json``
says the rest. A look at a moving target: what ends meanwhile is found dead by whoever looks next, and nothing
starts meanwhile, since a start needs the registry whose lock our caller holds.
"""

from __future__ import annotations

import json
import time

from devsup import identity, system, tree
from devsup.models import Row, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.models import Identity
    from devsup.paths import Home
    from devsup.system import ProcessInfo
    from devsup.tree import Marker

__all__ = ["living"]

_GUARDS = ("devsup/guard", "devsup.guard")


def living(home: Home) -> list[Row]:
    """Return one row for each server of `home` of which any process lives."""
    servers: dict[str, list[tuple[ProcessInfo, Marker]]] = {}
    for info, marker in tree.marked(home.root):
        servers.setdefault(marker.id, []).append((info, marker))
    rows: dict[tuple[str, str], Row] = {}
    for server, members in servers.items():
        row = _row(home, server, members)
        # Two of one session cannot be: the younger one is the one that the session knows.
        rival = rows.get((row.project, row.session)) if row else None
        if row is not None and (rival is None or rival.generation < row.generation):
            rows[row.project, row.session] = row
    return list(rows.values())


def _row(home: Home, server: str, members: list[tuple[ProcessInfo, Marker]]) -> Row | None:
    job = _job(home, server)
    guard = next((info for info, _ in members if _is_guard(info.pid)), None)
    tree_of = [info for info, _ in members if guard is None or info.pid != guard.pid]
    leader = _leader(tree_of, guard)
    who, guarded_by = _identity(leader), _identity(guard)
    if who is None and guarded_by is None:
        return None  # gone since
    marker = members[0][1]
    generation = max([one.generation for _, one in members] + [_number(job.get("generation")) or 0])
    port, listener_pid, inode = _listener(tree_of, _number(job.get("asked_port")))
    here = identity.here()
    command = job.get("command") or (system.cmdline(leader.pid) if leader else [])
    asked = _number(job.get("asked_port"))
    return Row(
        id=server,
        generation=generation,
        scope=here.key,
        netns=str(job.get("netns") or system.net_namespace()),
        project=marker.project,
        session=marker.session,
        app=job.get("app"),
        kind=str(job.get("kind") or "command"),
        cwd=str(job.get("cwd") or (leader and system.cwd(leader.pid)) or marker.project),
        command=[str(word) for word in command],
        log=str(job.get("log") or home.log(marker.project, marker.session, generation)),
        owner=job.get("owner"),
        started_at=_number(job.get("started_at")) or time.time_ns() // 1_000_000,
        folder=job.get("folder"),
        asked_port=asked,
        state=_state(asked, port, leader),
        guard=guarded_by,
        leader=who,
        port=port,
        url=f"http://localhost:{port}" if port else None,
        listener_pid=listener_pid,
        listener_inode=inode,
    )


def _state(asked: int | None, port: int | None, leader: ProcessInfo | None) -> State:
    if port is not None:
        return State.READY
    return State.STARTING if leader is None or asked is not None else State.RUNNING


def _job(home: Home, server: str) -> dict[str, Any]:
    try:
        with open(home.job(server), encoding="utf-8") as file:
            job = json.load(file)
    except (OSError, ValueError):
        return {}
    return job if isinstance(job, dict) else {}


def _is_guard(pid: int) -> bool:
    return any(name in word for word in system.cmdline(pid)[:6] for name in _GUARDS)


def _leader(members: list[ProcessInfo], guard: ProcessInfo | None) -> ProcessInfo | None:
    """Return the started process: a session leader below the guard, else the oldest."""
    for info in members:
        if guard is not None and info.sid == info.pid and info.ppid == guard.pid:
            return info
    return min(members, key=lambda info: (info.ticks, info.pid), default=None)


def _identity(info: ProcessInfo | None) -> Identity | None:
    if info is None:
        return None
    try:
        who = identity.of(info.pid)
    except OSError:
        return None
    return who if who is not None and who.ticks == info.ticks else None


def _listener(members: list[ProcessInfo], asked: int | None) -> tuple[int | None, int | None, int | None]:
    """Return port, pid and socket inode of what the tree listens on: the asked port, else the lowest."""
    found = [
        (one.port != asked, one.port, pid, one.inode)
        for pid, all_ in tree.listening(members).items()
        for one in all_
    ]
    if not found:
        return None, None, None
    _, port, pid, inode = min(found)
    return port, pid, inode


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""
What must be so before a server is reserved: nobody else has its port, its folder or its session.

Asked under the session's lock. Reads only. Every answer is advisory: the reservation's unique indexes and the
server's own bind decide.
"""

from __future__ import annotations

import os

from devsup import masking, ports, system
from devsup import tree as trees
from devsup.apps import nextlock
from devsup.clock import now_ms
from devsup.errors import NameTaken, PortTaken, UnmanagedRunning, UsageError
from devsup.models import State
from devsup.paths import Home
from devsup.registry import FolderBusy, PortLeased
from devsup.registry.pools import Pool, Wanted
from devsup.supervisor.view import Life, life, server_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.models import Row
    from devsup.registry import Registry
    from devsup.system import ProcessInfo

__all__ = [
    "AUTO_PORTS",
    "MAX_SERVERS",
    "auto_port",
    "auto_ports",
    "folder_taken",
    "limit",
    "no_auto_port",
    "port_owner",
    "refuse_doubles",
    "refuse_occupied",
    "refuse_taken",
]

#: Servers at most, where `DEVSUP_MAX_SERVERS` does not say otherwise.
MAX_SERVERS = 32
#: The name of the pool of automatic ports.
AUTO_PORTS = "ports"
#: More than any machine runs; it keeps a mistyped number within what SQLite counts.
_MOST_SERVERS = 100_000
#: For so long a server of another container keeps a port on which it does not listen yet: a start's own time.
_STARTING_MS = 45_000


def limit(environ: Mapping[str, str]) -> int:
    """
    Return how many servers may run at once.

    :raises UsageError: `DEVSUP_MAX_SERVERS` is no number in range
    """
    text = environ.get("DEVSUP_MAX_SERVERS") or str(MAX_SERVERS)
    if text.isascii() and text.isdecimal() and len(text) <= 6 and 0 < int(text) <= _MOST_SERVERS:
        return int(text)
    given = text if len(text) <= 20 else f"{text[:20]}…"
    raise UsageError(
        f"DEVSUP_MAX_SERVERS is `{given}`, not a number from 1 to {_MOST_SERVERS}",
        hint="unset DEVSUP_MAX_SERVERS",
    )


def refuse_doubles(home: Home, plan: Plan) -> None:
    """
    Refuse what runs elsewhere already.

    :raises NameTaken: the same session runs under another state folder
    :raises UnmanagedRunning: a Next.js server that devsup did not start runs in the folder
    """
    others: dict[str, tuple[Home, list[ProcessInfo]]] = {}
    for info, marker in trees.marked():
        same = marker.project == plan.project and marker.session == plan.session
        if same and marker.home != home.root:
            others.setdefault(marker.id, (Home(marker.home), []))[1].append(info)
    for server, (other, infos) in others.items():
        proof = trees.proven(infos, job=os.path.exists(other.job(server)), port=plan.port)
        # A guard alone is on its way out, or waits for its server to be recorded.
        if proof is not None and proof.own:
            raise NameTaken(
                f"`{plan.session}` of this project runs under another state folder, `{other.root}` "
                f"(pid {proof.own[0].pid})",
                hint=f"set DEVSUP_HOME={other.root} to reach it",
                details={"home": other.root, "pid": proof.own[0].pid},
            )
    running = nextlock.running(plan.folder or plan.cwd) if plan.kind == "next" else None
    if running is not None:
        raise UnmanagedRunning(
            f"a Next.js server that devsup did not start runs in `{plan.cwd}`: "
            f"pid {running['pid'] or 'unknown'}, {running['url'] or 'address unknown'}",
            hint=f"devsup adopt {running['pid']}"
            if running["pid"]
            else "use that one, or stop it where it was started; then call this again",
            details={"holder": {**running, "cwd": plan.cwd, "ours": False}},
        )


def refuse_taken(registry: Registry, plan: Plan, scope: str, again: Callable[..., str]) -> None:
    """
    Refuse a port on which somebody listens; ``again`` says the same call with more options, for a hint.

    :raises PortTaken: somebody listens on the port asked for
    """
    if plan.port is not None and not plan.port_auto:
        holder = ports.holder(plan.port, registry.rows(scope=scope))
        if holder is not None:
            raise _port_taken(plan, again, holder.details(), holder.name)


def auto_port(plan: Plan) -> Wanted | None:
    """
    Return how the reservation of ``plan`` gets an automatic port; None where another one was asked for.

    Which one is decided in the reservation's own transaction. Here is only looked who listens where: such a
    port is passed over, and what comes between is for the server's own bind to say.
    """
    if not plan.port_auto:
        return None

    def put(row: Row, port: int) -> Row:
        return row.replace(command=plan.with_port(port).command, asked_port=port)

    try:
        taken = frozenset(one.port for one in system.listeners())
    except OSError:
        taken = frozenset()
    return Wanted(auto_ports(), port_owner(plan.project, plan.app or plan.session), taken, put)


def auto_ports() -> Pool:
    """Return the pool of automatic ports of this network namespace."""
    found = ports.auto_range()
    return Pool(AUTO_PORTS, system.net_namespace(), found.start, len(found), ports.BLOCKED)


def port_owner(project: str, name: str) -> str:
    """Return by what the pool knows an app: its name, which has no blank, and its project."""
    return f"{name} {project}"


def no_auto_port() -> PortTaken:
    """Return the error of a pool that has no port left."""
    found = ports.auto_range()
    return PortTaken(
        f"all ports from {found.start} to {found.stop - 1} are taken", hint="devsup list --everywhere"
    )


def refuse_occupied(plan: Plan, again: Callable[..., str], busy: FolderBusy | PortLeased) -> Row:
    """
    Return the row that is no more in the way of a reservation.

    That is a dead one, which is to be ended, or a foreign one of which nothing listens, which is to lose its
    port: a container that has ended says nothing, and its port is not to be held for ever.

    :raises NameTaken, PortTaken: a living server is in the way
    """
    row = busy.row
    alive = life(row)
    if alive is Life.DEAD or (alive is Life.FOREIGN and isinstance(busy, PortLeased) and _is_idle(row, plan)):
        return row
    if isinstance(busy, FolderBusy):
        raise folder_taken(row, alive)
    pid = row.leader.pid if row.leader is not None else None
    name = f"`{row.session}` of `{row.project}` (pid {pid})"
    holder = {"pid": pid, "command": masking.shown(row.command), "cwd": row.cwd, "ours": row.id}
    raise _port_taken(plan, again, holder, name)


def _is_idle(row: Row, plan: Plan) -> bool:
    coming = row.state is State.STARTING and 0 <= now_ms() - row.started_at < _STARTING_MS
    return not coming and plan.port is not None and ports.is_free(plan.port)


def folder_taken(row: Row, alive: Life) -> NameTaken:
    """Return the error that says whose server has the folder."""
    server = server_of(row, alive)
    return NameTaken(
        f"`{row.folder}` already has a server: `{row.session}` of `{row.project}` (pid {server.pid})",
        hint=f"devsup status {server.pid}" if server.pid else "devsup list --everywhere",
        details={"server": server},
    )


def _port_taken(plan: Plan, again: Callable[..., str], holder: dict[str, Any], name: str) -> PortTaken:
    whose = "" if holder["ours"] else ", which devsup did not start"
    hint = again("--port", "auto")
    if plan.recipe.fixed:  # the command itself says which port, and nothing else is heard
        pid = holder["pid"]
        hint = f"devsup stop {pid}" if holder["ours"] and pid else "free that port, or change the command's"
    return PortTaken(
        f"port {plan.port} is taken by {name}{whose}",
        hint=hint,
        details={"port": plan.port, "holder": {**holder, "ours": bool(holder["ours"])}},
    )

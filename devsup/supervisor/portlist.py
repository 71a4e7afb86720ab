"""
Who listens on the ports that matter here, and which port each app of the project would get now.

A look at one moment, for a person or a program that wants to know before it starts something; a start asks
again, under its lock. Reads only.
"""

from __future__ import annotations

from devsup import identity, masking, ports, system
from devsup.apps import commands, configured, detect
from devsup.errors import DevsupError
from devsup.models import PortList, PortUse
from devsup.records import Record
from devsup.registry import Registry
from devsup.supervisor import preflight
from devsup.supervisor.view import Life, life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from devsup.apps.commands import Plan
    from devsup.models import Row
    from devsup.supervisor.looking import Looking
    from devsup.system import Listener

__all__ = ["Taken", "conflicts", "port_list", "who"]


def port_list(supervisor: Looking) -> PortList:
    """Return the listeners of interest by port, and in the notes what a start of each app would meet."""
    registry = Registry(supervisor.home)
    rows = _live(registry)
    plans = list(_plans(supervisor))
    uses = _uses(supervisor, rows, {port for plan in plans if (port := _port(registry, plan)) is not None})
    notes = [note for plan in plans if (note := _forecast(registry, plan, rows, uses)) is not None]
    return PortList(uses, [*registry.warnings, *notes])


def _live(registry: Registry) -> list[Row]:
    return [
        row
        for row in registry.rows(scope=identity.here().key)
        if life(row) in (Life.LIVE, Life.ORPHANED, Life.UNCLAIMED)
    ]


def _uses(supervisor: Looking, rows: list[Row], wanted: set[int]) -> list[PortUse]:
    inside = supervisor.project.rstrip("/") + "/"
    holders = _holders()
    found = []
    for one in system.listeners():
        pid = one.pid or holders.get(one.inode)
        row = _row_of(one, pid, rows)
        cwd = system.cwd(pid) if pid is not None else None
        here = cwd is not None and f"{cwd}/".startswith(inside)
        if (row is not None or here or one.port in wanted) and supervisor.may_see(cwd or "/"):
            found.append(_use(one, pid, row, cwd, supervisor.project if here else None))
    return sorted(set(found), key=lambda use: (use.port, use.address, use.pid or 0))


def _holders() -> dict[int, int]:
    """Return who holds each listening socket that we may look at: the first that was there."""
    inodes = {one.inode for one in system.listeners() if one.inode}
    held: dict[int, int] = {}
    for pid in sorted(system.all_pids(), reverse=True):
        held.update(dict.fromkeys(inodes & system.socket_inodes(pid), pid))
    return held


def _row_of(one: Listener, pid: int | None, rows: list[Row]) -> Row | None:
    if pid is None:
        return next((row for row in rows if row.listener_inode == one.inode), None)
    server = ports.server_of(pid, one, rows)
    return next((row for row in rows if row.id == server), None)


def _use(one: Listener, pid: int | None, row: Row | None, cwd: str | None, project: str | None) -> PortUse:
    command = masking.title(system.cmdline(pid)) if pid is not None else None
    return PortUse(
        port=one.port,
        address=one.address,
        pid=pid,
        command=command or None,
        cwd=cwd,
        server=row.id if row is not None else None,
        session=row.session if row is not None else None,
        project=row.project if row is not None else project,
        mine=row is not None,
    )


def _plans(supervisor: Looking) -> Iterator[Plan]:
    """Give what a start of each app would run; what cannot be started says so when it is."""
    config = configured.load(supervisor.project, supervisor.home)
    seen = configured.apply(detect.survey(supervisor.project, supervisor.cwd), config)
    for app in seen.apps:
        try:
            yield commands.plan(supervisor.project, supervisor.cwd, app=app.name, config=config)
        except DevsupError:
            continue


def _port(registry: Registry, plan: Plan) -> int | None:
    if plan.port_auto:
        owner = preflight.port_owner(plan.project, plan.app or plan.session)
        return registry.assigned(preflight.AUTO_PORTS, owner)
    return plan.port


class Taken(Record):
    """
    A port that a start of the app ``plan`` would not get.

    ``use`` is who listens there, None for one of ours that does not yet; ``by`` is the server that has it;
    ``instead`` is the command that helps.
    """

    plan: Plan
    port: int
    use: PortUse | None
    by: Row | None
    instead: str


def conflicts(supervisor: Looking) -> list[Taken]:
    """Return the ports that apps of this project are to have, and that others have."""
    registry = Registry(supervisor.home)
    rows = _live(registry)
    plans = list(_plans(supervisor))
    wanted = {port for plan in plans if (port := _port(registry, plan)) is not None}
    uses = _uses(supervisor, rows, wanted) if wanted else []
    return [one for plan in plans if (one := _taken(registry, plan, rows, uses)) and not plan.port_auto]


def _own(plan: Plan, rows: list[Row]) -> Row | None:
    return next((row for row in rows if (row.project, row.session) == (plan.project, plan.session)), None)


def _taken(registry: Registry, plan: Plan, rows: list[Row], uses: list[PortUse]) -> Taken | None:
    port = _port(registry, plan)
    if port is None or _own(plan, rows) is not None:
        return None
    taken = next((use for use in uses if use.port == port), None)
    leased = registry.leases(system.net_namespace()).get(port)
    by = next((row for row in rows if row.id == leased), None)
    if taken is None and by is None:
        return None
    adopt = taken is not None and not taken.mine and taken.project == plan.project
    start = f"devsup start {plan.app} --port auto"
    return Taken(
        plan, port, taken, by, f"devsup adopt {taken.pid}" if adopt and taken and taken.pid else start
    )


def _forecast(registry: Registry, plan: Plan, rows: list[Row], uses: list[PortUse]) -> str | None:
    """Return what `start` of this app would meet, as a sentence."""
    start, port = f"devsup start {plan.app}", _port(registry, plan)
    own = _own(plan, rows)
    if own is not None:
        where = own.port or own.asked_port
        return f"`{start}` finds its server{f', on port {where}' if where else ''}"
    if port is None:
        return f"`{start}` would get a port of its own" if plan.port_auto else None
    taken = _taken(registry, plan, rows, uses)
    if taken is None:
        return f"`{start}` would use port {port}"
    whose = who(taken.use, taken.by)
    if plan.port_auto:
        return f"`{start}` would get another port than {port}, which is taken by {whose}"
    return f"`{start}` wants port {port}, which is taken by {whose}: {taken.instead}"


def who(taken: PortUse | None, by: Row | None) -> str:
    """Return who has a port, for a sentence."""
    if taken is None or taken.mine:
        session = taken.session if taken is not None else by and by.session
        project = taken.project if taken is not None else by and by.project
        return f"`{session}` of `{project}`"
    if taken.pid is None:
        return "another user's process"
    return f"pid {taken.pid} (`{masking.brief(taken.command)}`{f' in `{taken.cwd}`' if taken.cwd else ''})"

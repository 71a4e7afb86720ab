"""
One thing's story: who started it, why it ended, who has the port, what to type next.

Put together of the events, the history, the log and the system, oldest first. Reads only.
"""

from __future__ import annotations

import os
import re
import time

from devsup import identity, masking, ports, system
from devsup import tree as trees
from devsup.clock import iso, now_ms
from devsup.errors import DevsupError, NotFound, NotOurs
from devsup.fleet import note
from devsup.masking import brief, quoted
from devsup.models import Row, State, Story, StoryEntry
from devsup.registry import Registry
from devsup.supervisor.view import OVER, Life, life, server_of, whose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.models import Event, Server
    from devsup.supervisor.core import Supervisor

__all__ = ["why"]

#: Events and errors of a log that a story tells; of more than that, the last ones.
_EVENTS, _ERRORS = 20, 3
#: Ancestors of a stranger that are named.
_ABOVE = 4


def why(supervisor: Supervisor, target: str) -> Story:
    """
    Return the story of a server, a process, or a port and whoever has it.

    :raises NotFound: nothing is known of it
    """
    registry = Registry(supervisor.home)
    port = int(target[1:]) if target[:1] == ":" and target[1:].isdecimal() else None
    try:
        found, alive = supervisor._find(target)  # noqa: SLF001 - a use case of it, in a module of its own
    except NotOurs:
        return _of_stranger(supervisor, registry, target, port)
    except NotFound:
        if port is None:
            raise
        return _of_port(supervisor, registry, port)
    entries, following = _of_server(supervisor, registry, found.row, alive)
    row = found.row
    wanted = port or row.port or row.asked_port
    if alive in OVER and wanted is not None:
        holder = ports.holder(wanted, registry.rows(scope=identity.here().key))
        if holder is not None:
            now = iso(now_ms())
            entries.append(StoryEntry(now, f"port {wanted} is now held by {_holder(holder)}", "system"))
            if holder.ours is None and holder.pid is not None and row.app:
                following = f"devsup start {quoted(row.app)} --port auto"
    return Story(entries, following, found.notes)


def _holder(holder: ports.Holder) -> str:
    return f"{holder.name}, a server of devsup" if holder.ours is not None else holder.name


# -- a server of ours ------------------------------------------------------------------------------------


def _of_server(
    supervisor: Supervisor, registry: Registry, row: Row, alive: Life
) -> tuple[list[StoryEntry], str]:
    server = server_of(row, alive)
    events = [one for one in registry.events(limit=100_000, project=row.project) if _is_of(one, row)]
    entries = [StoryEntry(iso(one.time), _told(one, row), "event") for one in events[-_EVENTS:]]
    if not any(one.type in ("started", "adopted") for one in events[-_EVENTS:]):
        text = f"started by {row.owner or 'somebody'}: `{brief(masking.shown(row.command))}` in `{row.cwd}`"
        entries.insert(0, StoryEntry(iso(row.started_at), text, "history"))
    ended = alive in OVER
    if server.state in (State.CRASHED, State.EXITED, State.UNHEALTHY, State.STARTING, State.LOST):
        entries += _log(row, ended=ended)
    entries.append(StoryEntry(iso(now_ms()), _state(row, server, alive), "system"))
    lease = note.shown(supervisor.home, row.id) if not ended else None
    if lease is not None:
        held = f"held until {lease['expires_at']}" if lease["state"] == "held" else "lost"
        entries.append(StoryEntry(iso(now_ms()), f"its lease in the fleet is {held}", "system"))
    return entries, _next(supervisor, row, server, alive)


#: Why a server is ended that nobody here has asked to be: the reasons of its guard.
_ENDS = {
    "ttl": "its time was over",
    "idle": "nobody used it any more",
    "parent_gone": "the process that it was started for had ended",
    "fleet": "somebody on another host asked for its stop",
    "lease_lost": "its lease in the fleet was lost",
}


def _is_of(one: Event, row: Row) -> bool:
    """Tell whether ``row``'s server is what an event is about; a finding names it in its id."""
    return one.server == row.id or str((one.details or {}).get("id", "")).endswith(f":{row.id}")


def _told(one: Event, row: Row) -> str:
    """Return an event as a sentence."""
    reason, by = one.reason, f" by {_who(one.by)}" if one.by else ""
    because = f": {reason}" if reason else ""
    exit_ = f" with exit code {one.exit_code}" if one.exit_code is not None else ""
    pid = f" as pid {one.pid}" if one.pid is not None else ""
    texts = {
        "started": f"started by {row.owner or 'somebody'}{pid}: `{brief(masking.shown(row.command))}`",
        "ready": f"answered{f' on {row.url}' if row.url and one.generation == row.generation else ''}",
        "stopping": _ENDS.get(reason or "") or f"somebody asked for its {reason or 'stop'}{by}",
        "stopped": f"stopped{by}{because}",
        "exited": f"ended by itself{exit_}{because}",
        "crashed": (
            f"ended by itself{exit_}, which nobody asked for{because}" if pid else f"was not run{because}"
        ),
        "restarted": f"run again{by}{f', after it had ended{exit_}' if exit_ else ''}{because}",
        "unhealthy": f"became unhealthy{because}",
        "adopted": f"taken over by a guard or an `adopt`{pid}{because}",
        "lost": f"lost{because or ': the machine or container that it ran on has ended'}",
        "recovered": f"found again{because}",
        "finding": (reason or "") if (one.details or {}).get("open") else f"no longer so: {reason}",
    }
    return texts.get(one.type, f"{one.type}{because}")


def _who(by: str) -> str:
    return f"pid {by}" if by.isdecimal() else by


def _log(row: Row, *, ended: bool) -> list[StoryEntry]:
    from devsup.logs.errors import collect

    try:
        page = collect(row.log, None, generation=row.generation, root=row.cwd, ended=ended, whole=True)
        written = iso(round(os.stat(row.log).st_mtime * 1e3))
    except (DevsupError, OSError):
        return []
    entries = []
    for one in (page.errors or [])[-_ERRORS:]:
        place = f" ({one.file}:{one.line})" if one.file else ""
        entries.append(StoryEntry(written, f"printed: {masking.text(one.message)}{place}", "log"))
    return entries


def _state(row: Row, server: Server, alive: Life) -> str:
    if alive is Life.FOREIGN:
        return f"it belongs to {whose(row)}: nothing can be said of its processes here"
    if alive is Life.ENDED or alive is Life.DEAD:
        noted = "" if alive is Life.ENDED else ", and nobody has written that down"
        how = f" (exit code {server.exit_code})" if server.exit_code is not None else ""
        return f"nothing of it runs: {server.state.value}{how}{noted}"
    guard = f"guarded by pid {server.guard_pid}" if server.guard_pid is not None else "without a guard"
    where = f", listens on {server.url}" if server.url else ", listens nowhere"
    by = f"; pid {row.stop.by.pid} is asking for its {row.stop.purpose}" if row.stop is not None else ""
    return f"it is {server.state.value}, pid {server.pid}{where}, {guard}{by}"


def _next(supervisor: Supervisor, row: Row, server: Server, alive: Life) -> str:
    """Return what to type."""
    there = "" if row.project == supervisor.project else f"-C {quoted(row.project)} "
    name, say = quoted(row.app or row.session), f"devsup {there}"
    if alive is Life.FOREIGN:
        return "devsup list --everywhere"
    if alive in OVER:
        failed = server.state in (State.CRASHED, State.LOST)
        if failed and os.path.isfile(row.log):
            return f"{say}logs {name} --errors"
        return f"{say}restart {name}"
    if alive is Life.ORPHANED and row.app is not None:
        return f"{say}start {name}"
    return {
        State.STARTING: f"{say}wait {name}",
        State.RESTARTING: f"{say}wait {name}",
        State.STOPPING: f"{say}wait {name} --gone",
        State.UNHEALTHY: f"{say}restart {name}",
        State.READY: f"{say}check {name}",
    }.get(server.state, f"{say}status {name}")


# -- who is not ours -------------------------------------------------------------------------------------


def _of_port(supervisor: Supervisor, registry: Registry, port: int) -> Story:
    """Return the story of a port on which nobody listens, or nobody who is known."""
    now = iso(now_ms())
    holder = ports.holder(port, registry.rows(scope=identity.here().key)) if 0 < port < 65536 else None
    if holder is not None:
        return Story(
            [StoryEntry(now, f"port {port} is held by {_holder(holder)}", "system")], "devsup ports", []
        )
    entries = [StoryEntry(now, f"nobody listens on port {port}", "system")]
    leased = registry.leases(system.net_namespace()).get(port)
    row = registry.row(leased) if leased is not None else None
    if row is not None:
        text = f"`{row.session}` of `{row.project}` has it, and does not listen"
        entries.append(StoryEntry(now, text, "system"))
        return Story(entries, _next(supervisor, row, server_of(row, life(row)), life(row)), [])
    notes = supervisor.ports().notes
    for one in notes:
        if re.search(rf"\bport {port}\b", one):
            entries.append(StoryEntry(now, one, "system"))
            return Story(entries, one.split("`")[1], [])
    apps = [one.split("`")[1] for one in notes if one.startswith("`devsup start ")]
    return Story(entries, f"{apps[0]} --port {port}" if len(apps) == 1 else "devsup ports", [])


def _of_stranger(supervisor: Supervisor, registry: Registry, target: str, port: int | None) -> Story:
    """Return the story of a process that devsup did not start."""
    now, entries = time.time(), list[StoryEntry]()
    pid = int(target) if port is None else None
    if port is not None:
        holder = ports.holder(port, registry.rows(scope=identity.here().key))
        pid = holder.pid if holder is not None else None
        if holder is None or pid is None:
            return _of_port(supervisor, registry, port)
    assert pid is not None
    chain = _chain(pid)
    for info in reversed(chain[1:]):
        entries.append(StoryEntry(_since(info, now), f"pid {info.pid} began: `{_line(info)}`", "system"))
    cwd = system.cwd(pid)
    own = chain[0] if chain else None
    below = f", below pid {own.ppid}" if own and own.ppid else ""
    text = f"pid {pid} began{below}: `{_line(own) if own else '?'}`"
    text += f" in `{cwd}`" if cwd else ""
    entries.append(StoryEntry(_since(own, now) if own else None, text, "system"))
    entries.sort(key=lambda one: one.time or "")  # an orphan may be older than whom it came to
    held = f"it holds port {port}; devsup did not start it" if port is not None else "devsup did not start it"
    entries.append(StoryEntry(iso(round(now * 1e3)), held, "system"))
    here = cwd is not None and f"{cwd}/".startswith(supervisor.project.rstrip("/") + "/")
    following = f"devsup adopt {pid}" if here and port is not None else f"ps -fp {pid}"
    return Story(entries, following, [])


def _chain(pid: int) -> list[system.ProcessInfo]:
    found: list[system.ProcessInfo] = []
    try:
        for info in trees.lineage(pid):
            if (info.pid == 1 and found) or len(found) > _ABOVE:
                break
            found.append(info)
    except OSError:
        pass  # who is hidden is not told of
    return found


def _line(info: system.ProcessInfo) -> str:
    return brief(masking.title(system.cmdline(info.pid)) or info.comm)


def _since(info: system.ProcessInfo, now: float) -> str | None:
    ago = (system.now_ticks() - info.ticks) / os.sysconf("SC_CLK_TCK")
    return iso(round((now - ago) * 1e3)) if 0 <= ago < now else None

"""
Bring a server that somebody else started under the registry.

From then on it is found, listed and stopped like any other: as the very process that was seen (its identity),
with what descends from it and, where it leads a group or session, that. It has no marker and no guard, so a
stop never goes by anything weaker: not by the session of the shell that it was typed in, not by that shell's
other jobs. `start` gives it a guard. The session's lock is held as for a start; nothing is signalled here.
"""

from __future__ import annotations

import os
import time
from binascii import hexlify

from devsup import identity, masking, readiness, system
from devsup import tree as trees
from devsup.apps import commands, configured, detect, naming, nextlock, processes
from devsup.apps.presets import KINDS
from devsup.clock import now_ms
from devsup.errors import DevsupError, NameTaken, NotFound, NotOurs, UsageError
from devsup.models import ADOPTED, NO_GUARD, Row, StartResult, State
from devsup.paths import ensure_home
from devsup.registry import FolderBusy, PortLeased, Registry, SessionBusy
from devsup.supervisor import preflight, sessions, targets
from devsup.supervisor.view import OVER, Life, life, server_of
from devsup.supervisor.waiting import pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.apps.commands import Plan
    from devsup.config import Config
    from devsup.models import Identity
    from devsup.readiness import Found
    from devsup.supervisor.core import Supervisor
    from devsup.system import ProcessInfo

__all__ = ["adopt"]

#: Seconds to wait for a start of the same session.
_LOCK_TIMEOUT = 10.0
#: Rows that may stand in the way; each round removes one.
_ROUNDS = 50


def adopt(supervisor: Supervisor, target: str, *, owner: str, name: str | None) -> StartResult:
    """Record the server that ``target`` (a pid or `:port`) is or belongs to; see `Supervisor.adopt`."""
    began = time.monotonic()
    registry = Registry(supervisor.home)
    if not target.lstrip(":").isdecimal():
        raise UsageError(f"`{target}` is neither a pid nor a `:port`", hint="devsup list")
    try:
        found = targets.find(registry, supervisor.project, target)
    except NotOurs as stranger:
        pid = stranger.details.get("holder", stranger.details)["pid"]
        if pid is None:
            raise NotOurs(
                f"{stranger.message}: it cannot be seen who that is",
                hint=stranger.hint,
                details=stranger.details,
            ) from None
    else:
        # A pid that one of ours had once may be somebody else's now.
        another = found.ended and not target.startswith(":") and identity.of(int(target)) is not None
        if not another:
            return _known(supervisor, found, began)
        pid = int(target)
    info = _mine(supervisor, pid)
    top = processes.top_of(info, supervisor.project)
    leader = identity.of(top.pid)
    if leader is None or leader.ticks != top.ticks:
        raise _gone(pid)
    notes = []
    if top.pid != pid:
        whole = masking.brief(masking.shown(processes.argv_of(top.pid)))
        notes.append(f"pid {pid} is a part of `{whole}` (pid {top.pid})")
    port = int(target[1:]) if target.startswith(":") else None
    try:
        row = _record(supervisor, registry, top, leader, owner=owner, name=name, port=port)
    except SessionBusy as busy:  # somebody else has just adopted it
        return _known(supervisor, targets.Target(target, busy.row, ended=False, notes=[]), began)
    server = server_of(row, life(row))
    label = row.app or row.session
    notes.append(f"it has no guard: `devsup start {label}` gives it one, which sees its end at once")
    if not os.path.isfile(row.log):
        notes.append("devsup has no log of it: what it prints goes where it was started")
    waited = round((time.monotonic() - began) * 1e3)
    return StartResult(server, reused=False, waited_ms=waited, notes=notes)


def _known(supervisor: Supervisor, found: targets.Target, began: float) -> StartResult:
    alive = Life.ENDED if found.ended else life(found.row)
    if alive in OVER:
        if found.text.startswith(":"):
            raise NotFound(f"nobody listens on port {found.text[1:]}", hint="devsup list --everywhere")
        raise _gone(int(found.text))
    where = "" if found.row.project == supervisor.project else f" of `{found.row.project}`"
    notes = [*found.notes, f"devsup has `{found.row.session}`{where} already"]
    waited = round((time.monotonic() - began) * 1e3)
    return StartResult(server_of(found.row, alive), reused=True, waited_ms=waited, notes=notes)


def _gone(pid: int) -> NotFound:
    return NotFound(f"pid {pid} has ended", hint="devsup list")


# -- who may be adopted ----------------------------------------------------------------------------------


def _mine(supervisor: Supervisor, pid: int) -> ProcessInfo:
    """
    Return process ``pid`` if it may be stopped by this user of this project.

    :raises NotOurs: why it may not
    """
    folder = system.cwd(pid)
    details = {"pid": pid, "command": masking.title(system.cmdline(pid)) or None, "cwd": folder}

    def refuse(why: str, hint: str = "devsup list") -> NotOurs:
        return NotOurs(f"pid {pid} {why}", hint=hint, details=details)

    if pid == 1:
        raise refuse("is the first process of the system")
    user = system.uid(pid)
    try:
        info = system.process(pid)
    except PermissionError:
        raise refuse("is another user's") from None
    if info is None or info.dead:
        raise _gone(pid)
    if user != os.getuid():
        raise refuse("is another user's")
    if folder is None:
        raise refuse("is in a folder that cannot be seen")
    if not f"{folder}/".startswith(supervisor.project.rstrip("/") + "/"):
        raise refuse(f"runs in `{folder}`, outside of `{supervisor.project}`")
    # What is above one that is hidden is not this user's to adopt.
    if pid in {os.getpid(), *trees.above(os.getpid())}:
        raise refuse("is where this call comes from")
    if info.tty != 0 and info.sid == pid and processes.is_shell(pid):
        raise refuse("is the shell of a terminal")
    if trees.is_shared(info):
        raise refuse("is a program that other projects share")
    supervisor.confine(folder)
    marker = trees.marker_of(pid)
    if marker is not None and marker.home != supervisor.home.root:
        raise refuse(
            f"belongs to the state folder `{marker.home}`", f"set DEVSUP_HOME={marker.home} to reach it"
        )
    return info


# -- the row ---------------------------------------------------------------------------------------------


def _record(
    supervisor: Supervisor, registry: Registry, top: ProcessInfo, leader: Identity, *, owner: str,
    name: str | None, port: int | None,
) -> Row:  # fmt: skip
    marker = trees.marker_of(top.pid)
    # What a server of ours has left running has its marker for ever: only under that it is somebody's.
    server = marker.id if marker is not None else hexlify(os.urandom(6)).decode()
    found = readiness.find(trees.Tree(server, leader), asked=port, log="")
    listener = found.pid if found is not None else top.pid
    folder = system.cwd(listener) or supervisor.project
    lock = nextlock.running(folder)
    by_lock = lock is not None and lock["pid"] == listener
    kind = "next" if by_lock else processes.kind_of(listener)
    plan = _plan(supervisor, top, folder, kind, found, name)
    ensure_home(supervisor.home)
    row = _row(plan, server, leader, top, found, owner)

    def log_of(generation: int) -> str:
        own = supervisor.home.log(plan.project, plan.session, generation)
        return (lock and lock["log"]) or own

    scope = identity.here().key
    guarded = sessions.hold(supervisor.home, scope, plan.project, plan.session, purpose="adopt")
    deadline = time.monotonic() + _LOCK_TIMEOUT
    try:
        while not sessions.try_hold(supervisor.home, guarded):
            if time.monotonic() >= deadline:
                raise guarded.timed_out()
            pause(deadline)
        return _reserve(registry, plan, row, log_of)
    finally:
        guarded.release()


def _reserve(registry: Registry, plan: Plan, row: Row, log_of: Callable[[int], str]) -> Row:
    dead: list[Row] = []
    for _ in range(_ROUNDS):
        try:
            reserved = registry.reserve(
                row, dead=dead, limit=preflight.limit(os.environ), port=row.port, log_of=log_of,
                event="adopted",
            )  # fmt: skip
        except SessionBusy as busy:
            if busy.row.leader == row.leader:
                raise
            if life(busy.row) is not Life.DEAD:
                raise _session_taken(busy.row) from None
            dead.append(busy.row)
        except (FolderBusy, PortLeased) as busy:
            dead.append(preflight.refuse_occupied(plan, lambda *_: "devsup list --everywhere", busy))
        else:
            if identity.is_gone(row.leader):
                registry.end_lost([reserved], reserved.scope)
                raise _gone(row.leader.pid if row.leader is not None else 0)
            return reserved
    raise NameTaken(f"`{row.session}` could not be recorded", hint="devsup list --everywhere")


def _session_taken(row: Row) -> NameTaken:
    name = row.app or row.session
    return NameTaken(
        f"`{row.session}` already has a server (pid {row.leader.pid if row.leader else 'unknown'}): "
        f"give this one a name of its own by `--name`",
        hint=f"devsup status {name}",
        details={"server": server_of(row, life(row))},
    )


def _row(plan: Plan, server: str, leader: Identity, top: ProcessInfo, found: Found | None, owner: str) -> Row:
    now = now_ms()
    age = max(0, system.now_ticks() - top.ticks) * 1000 // os.sysconf("SC_CLK_TCK")
    row = Row(
        id=server,
        generation=0,
        scope=identity.here().key,
        netns=system.net_namespace(),
        project=plan.project,
        session=plan.session,
        app=plan.app,
        kind=plan.kind,
        cwd=plan.cwd,
        command=plan.command,
        log="",
        owner=owner,
        started_at=now - age,
        folder=plan.folder,
        state=State.RUNNING,
        guard=NO_GUARD,
        leader=leader,
        reason=ADOPTED,
    )
    if found is None:
        return row
    port = found.listener.port
    return row.replace(
        state=State.READY,
        asked_port=port,
        port=port,
        url=readiness.url_of(found.listener, found.scheme),
        listener_pid=found.pid,
        listener_inode=found.listener.inode,
        ready_at=now,
    )


def _plan(
    supervisor: Supervisor, top: ProcessInfo, folder: str, kind: str, found: Found | None, name: str | None
) -> Plan:
    """
    Return as what devsup would run it: the app of this folder where there is one of its kind.

    So `start` finds it under the app's name, and `restart` has a command that can be executed: what Next.js
    and npm show of theirs cannot.
    """
    if name is not None and not naming.is_name(name):
        raise UsageError(f"`{name}` cannot be a name", hint="devsup adopt --help")
    config = configured.load(supervisor.project, supervisor.home)
    if name is None and kind != "command":
        plan = _plan_of_app(supervisor, folder, kind, found, config)
        if plan is not None:
            return plan
    argv, place = processes.argv_of(top.pid) or [top.comm], system.cwd(top.pid) or folder
    for words in (argv, ["sh", "-c", 'exec "$@"', "sh", *argv]):
        try:
            return commands.plan(supervisor.project, place, app=name, command=words, config=config)
        except DevsupError:
            continue  # a script that the package does not have any more, say: it runs all the same
    raise NotOurs(f"pid {top.pid} cannot be named", hint="devsup adopt --help")


def _plan_of_app(
    supervisor: Supervisor, folder: str, kind: str, found: Found | None, config: Config | None
) -> Plan | None:
    port = found.listener.port if found is not None else None
    try:
        seen = configured.apply(detect.survey(supervisor.project, folder), config)
        app = seen.at(os.path.realpath(folder), kind)
        if app is None or kind not in (app.kind, KINDS[app.kind].refines):
            return None
        return commands.plan(supervisor.project, folder, app=app.name, port=port, config=config)
    except DevsupError:
        return None

"""
The rows of a registry that was lost, from the processes that live and from what they were asked to run.

Guards, servers and their descendants carry a marker (home, project, session, id, generation);
``servers/<id>.json`` says the rest. A look at a moving target: what ends meanwhile is found dead by whoever
looks next, and nothing starts meanwhile, since a start needs the registry whose lock our caller holds.

A guard imports this module at its start, and with it all that a rebuild needs: the package may be gone later.
"""

from __future__ import annotations

import os

from devsup import compactjson, identity, readiness, system, tree
from devsup.clock import now_ms
from devsup.filenames import native_all
from devsup.models import NO_GUARD, SESSION_PREFIX, Identity, Row, State
from devsup.registry import building

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.paths import Home
    from devsup.system import Listener, ProcessInfo
    from devsup.tree import Marker

__all__ = ["building", "living"]


def living(home: Home) -> list[Row]:
    """
    Return a row for each server of `home` that is proven to live; see `tree.proven`.

    A server that left a job file and no process has ended while nobody kept a record: it is among the rows
    too, as an ended one, so that its log is still found.
    """
    servers: dict[str, list[tuple[ProcessInfo, Marker]]] = {}
    for info, marker in tree.marked(home.root):
        servers.setdefault(marker.id, []).append((info, marker))
    jobs = _jobs(home)
    found = [_row(home, jobs.get(server, {}), members) for server, members in servers.items()]
    alive = [row for row in found if row is not None]
    over = jobs.keys() - {row.id for row in alive}
    return _without_rivals(alive) + [row for row in map(_lost, (jobs[server] for server in over)) if row]


def _without_rivals(rows: list[Row]) -> list[Row]:
    """
    Keep what the unique indexes allow: the youngest server of a session, and of a folder.

    There are no others where all went well; where there are, the one that was started last is the one that
    everybody was told of.
    """
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: row.generation, reverse=True):
        own = (row.scope, row.project, row.session)
        if any((one.scope, one.project, one.session) == own for one in kept):
            continue
        if row.folder is not None and any((one.scope, one.folder) == (row.scope, row.folder) for one in kept):
            row = row.replace(folder=None)  # noqa: PLW2901 - the same server, with one promise less
        kept.append(row)
    return kept


# -- from processes ---------------------------------------------------------------------------------


def _row(home: Home, job: dict[str, Any], members: list[tuple[ProcessInfo, Marker]]) -> Row | None:
    marker = members[0][1]
    asked = _number(job.get("port", job.get("asked_port")))
    job_file = os.path.exists(home.job(marker.id))  # half of one proves as much
    proof = tree.proven([info for info, _ in members], job=job_file, port=asked)
    if proof is None:
        return None  # what a server left running when it was stopped
    guard, infos = proof.guard, proof.own
    leader = _leader(infos, guard)
    here = identity.here().key
    scope = _text(job.get("scope")) or here
    guarded_by, led_by = _identity(guard, foreign=scope != here), _identity(leader, foreign=scope != here)
    if guarded_by is None and led_by is None:
        return None  # gone since
    # A guard keeps the marker it was started with over every restart of its server.
    generation = max([one.generation for _, one in members] + [_number(job.get("generation")) or 0])
    listener_pid, listener = _listener(infos, asked)
    return Row(
        id=marker.id,
        generation=generation,
        scope=scope,
        netns=_text(job.get("netns")) or system.net_namespace(),
        project=marker.project,
        session=marker.session,
        app=_app(job, marker.session),
        kind=_text(job.get("kind")) or "command",
        cwd=_text(job.get("cwd")) or (leader and system.cwd(leader.pid)) or marker.project,
        command=_words(job.get("command")) or (system.cmdline(leader.pid) if leader else []),
        log=_text(job.get("log")) or home.log(marker.project, marker.session, generation),
        owner=_text(job.get("owner")),
        started_at=_number(job.get("started_at")) or now_ms(),
        folder=_text(job.get("folder")),
        asked_port=asked,
        state=_state(asked, listener, leader),
        guard=guarded_by or NO_GUARD,
        leader=led_by,
        port=listener.port if listener else None,
        # Whether it was https died with the registry; a guard writes it at the next change.
        url=readiness.url_of(listener) if listener else None,
        listener_pid=listener_pid,
        listener_inode=listener.inode if listener else None,
    )


def _leader(infos: list[ProcessInfo], guard: ProcessInfo | None) -> ProcessInfo | None:
    """Return the started process: a session leader below the guard, else the oldest."""
    for info in infos:
        if guard is not None and info.sid == info.pid and info.ppid == guard.pid:
            return info
    return min(infos, key=lambda info: (info.ticks, info.pid), default=None)


def _identity(info: ProcessInfo | None, *, foreign: bool) -> Identity | None:
    if info is None:
        return None
    try:
        who = identity.of(info.pid)
        if who is None or who.ticks != info.ticks:
            return None
        # A container's processes are visible from outside, under other numbers than those of its own rows.
        return who.replace(pid=_inner_pid(info.pid)) if foreign else who
    except (OSError, ValueError):
        return None


def _inner_pid(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid


def _listener(infos: list[ProcessInfo], asked: int | None) -> tuple[int | None, Listener | None]:
    """Return who of the tree listens where: on the asked port, else on the lowest."""
    found = [(pid, one) for pid, listeners in tree.listening(infos).items() for one in listeners]
    return min(found, key=lambda each: (each[1].port != asked, each[1].port, each[0]), default=(None, None))


def _state(asked: int | None, listener: Listener | None, leader: ProcessInfo | None) -> State:
    if listener is not None:
        return State.READY
    return State.STARTING if leader is None or asked is not None else State.RUNNING


# -- from job files ---------------------------------------------------------------------------------


def _jobs(home: Home) -> dict[str, dict[str, Any]]:
    jobs = {}
    try:
        names = os.listdir(home.servers)
    except OSError:
        return {}
    for name in names:
        server, dot, ending = name.rpartition(".")
        if (dot, ending) != (".", "json"):
            continue
        try:
            with open(f"{home.servers}/{name}", encoding="utf-8") as file:
                job = native_all(compactjson.loads(file.read()))
        except (OSError, ValueError):
            continue
        if isinstance(job, dict) and job.get("id") == server:
            jobs[server] = job
    return jobs


def _lost(job: dict[str, Any]) -> Row | None:
    project, session = _text(job.get("project")), _text(job.get("session"))
    scope, generation = _text(job.get("scope")), _number(job.get("generation"))
    if project is None or session is None or scope is None or generation is None:
        return None
    return Row(
        id=job["id"],
        generation=generation,
        scope=scope,
        netns=_text(job.get("netns")) or "",
        project=project,
        session=session,
        app=_app(job, session),
        kind=_text(job.get("kind")) or "command",
        cwd=_text(job.get("cwd")) or project,
        command=_words(job.get("command")),
        log=_text(job.get("log")) or "",
        owner=_text(job.get("owner")),
        started_at=_number(job.get("started_at")) or now_ms(),
        asked_port=_number(job.get("port", job.get("asked_port"))),
        state=State.LOST,
        ended_at=now_ms(),
        reason="it had ended when the registry was rebuilt",
    )


def _app(job: dict[str, Any], session: str) -> str | None:
    named = session.removeprefix(SESSION_PREFIX)
    return _text(job.get("app")) or (named if named != session else None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []

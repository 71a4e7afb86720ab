"""
Write down what a guard is to run, and start it with the environment that its server shall have.

The environment goes from process to process and is never written anywhere.
"""

from __future__ import annotations

import os

from devsup import bounds, identity, logs
from devsup.apps import commands
from devsup.apps.presets import KINDS
from devsup.guard import job as jobs
from devsup.guard.job import Job
from devsup.guard.spawn import ADOPT, Hearing, spawn
from devsup.tree import MARKER, Marker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.fleet.membership import Membership
    from devsup.models import Row
    from devsup.paths import Home
    from devsup.registry import Registry

__all__ = ["launch_guard", "tidy"]

#: Generations of a session whose logs are kept.
KEPT_LOGS = 3


def launch_guard(
    home: Home,
    row: Row,
    plan: Plan,
    executable: str,
    environ: Mapping[str, str],
    *,
    mode: str,
    fleet: Membership | None = None,
    redis: str | None = None,
) -> Hearing:
    """
    Start the guard of ``row``; ``environ`` is the caller's environment, which the plan changes.

    A guard that takes over (`ADOPT`) keeps to what was asked for when the server was started. ``redis`` is
    where its fleet is; that may hold a password, and goes from environment to environment alone.

    :raises InternalError: the guard cannot be started
    :raises OSError: the job cannot be written
    """
    job = Job(
        id=row.id,
        generation=row.generation,
        home=home.root,
        scope=row.scope,
        netns=row.netns,
        project=row.project,
        session=row.session,
        app=row.app,
        kind=row.kind,
        cwd=row.cwd,
        command=row.command,
        executable=executable,
        port=row.asked_port,
        default_port=KINDS[plan.kind].default_port,
        folder=row.folder,
        probe=plan.probe,
        log=row.log,
        owner=row.owner,
        started_at=row.started_at,
        policy=plan.policy,
        fleet=fleet.plain() if fleet is not None else None,
    )
    if mode == ADOPT:
        first = jobs.find(home.job(row.id))
        if first is not None:  # else lost with the registry, say: as a start of today would have it
            job = job.replace(
                policy=first.policy, probe=first.probe, started_at=first.started_at, fleet=first.fleet
            )
    guard_log = home.guard_log(row.project, row.session)
    os.makedirs(os.path.dirname(guard_log), mode=0o700, exist_ok=True)  # an adopted server's log is elsewhere
    os.makedirs(os.path.dirname(row.log), mode=0o700, exist_ok=True)
    jobs.write(home.job(row.id), job)
    marker = Marker(home.root, row.project, row.session, row.id, row.generation)
    changed = {**commands.environment(plan, environ), MARKER: str(marker)}
    if redis is not None:
        from devsup.fleet.membership import ADDRESS

        changed[ADDRESS] = redis
    return spawn(job, changed, mode=mode, log=guard_log)


def tidy(registry: Registry, row: Row, policy: Mapping[str, Any]) -> None:
    """
    Remove the logs of ``row``'s session that are beyond the bound, and jobs whose servers are no more.

    Rows of containers that have ended go to the history: who ran in them cannot do it.
    """
    logs.prune(os.path.dirname(row.log), row.session, KEPT_LOGS, keep_paths=[row.log])
    for generation in range(max(0, row.generation - KEPT_LOGS), row.generation):
        # Its guard may have been killed before it could.
        bounds.keep(registry.home.log(row.project, row.session, generation), os.environ, policy)
    folder = registry.home.servers
    # Files first, then rows: a job is written after its server was reserved, so one without a row is over.
    found = os.listdir(folder)
    rows = registry.rows()
    lost = [one for one in rows if one.scope != row.scope and identity.scope_relation(one.scope) == "lost"]
    if lost:
        registry.end_lost(lost, row.scope)
    known = {one.id for one in rows if one not in lost}
    for name in found:
        if name.partition(".")[0] not in known:
            jobs.remove(f"{folder}/{name}")

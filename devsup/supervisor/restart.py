"""
Run a server again: by its guard, which has kept command, environment and port.

One claim at a time per generation: two restarts at once are one, and a stop that comes meanwhile wins.
"""

from __future__ import annotations

import os
import signal
import time

from devsup import identity
from devsup.clock import distinct_ms
from devsup.errors import Busy, NotOurs
from devsup.guard import job as jobs
from devsup.guard.spawn import LOOK
from devsup.models import Identity, StartResult, StopClaim
from devsup.registry import Registry
from devsup.supervisor import ready
from devsup.supervisor.view import OVER, Life, life, server_of, whose
from devsup.supervisor.waiting import Ticker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.guard.job import Job
    from devsup.models import Row
    from devsup.supervisor.core import Supervisor
    from devsup.supervisor.waiting import Progress

__all__ = ["restart"]

#: Seconds from SIGTERM to SIGKILL where nobody says otherwise; as in `devsup.shutdown`, which costs more.
_GRACE = 5.0

_LOST_ENVIRONMENT = (
    "it had no guard: it was started with this caller's environment, without earlier --env values"
)


def restart(
    supervisor: Supervisor,
    target: str,
    *,
    timeout: float,
    grace: float | None,
    refuse: Callable[[Row], DevsupError | None] | None,
    on_progress: Callable[[Progress], None] | None,
) -> StartResult:
    """Restart the server that ``target`` means; see `Supervisor.restart`."""
    began = time.monotonic()
    found, alive = supervisor._find(target)  # noqa: SLF001 - the two modules are one
    row = found.row
    if alive is Life.FOREIGN:
        raise NotOurs(
            f"`{row.session}` belongs to {whose(row)}", hint=f"devsup status {row.app or row.session}"
        )
    refusal = refuse(row) if refuse is not None and alive not in OVER else None
    if refusal is not None:
        raise refusal
    registry = Registry(supervisor.home)
    if alive is Life.UNCLAIMED:
        # Somebody's start is on its way: let it come, then restart that.
        recorded = ready.follow(
            registry, row, deadline=began + timeout, ticker=Ticker(on_progress), until_recorded=True
        )
        row, alive = (row, Life.DEAD) if recorded is None else (recorded, life(recorded))
    if alive is not Life.LIVE:
        return _start_again(supervisor, row, alive, timeout=timeout, grace=grace, on_progress=on_progress)
    held = row.stop
    dead = held.by if held is not None and identity.is_gone(held.by) else None
    job = jobs.find(supervisor.home.job(row.id))
    own = float(job.policy.get("grace", _GRACE)) if job is not None else _GRACE
    mine = StopClaim(identity.me(), distinct_ms(), "restart", own if grace is None else grace, sweep=False)
    claimed = registry.claim_stop(row.id, row.generation, mine, dead_holder=dead)
    if claimed is not None and claimed != mine and claimed.purpose == "stop":
        raise Busy(
            f"`{row.session}` is being stopped by pid {claimed.by.pid}",
            hint=f"devsup wait {row.app or row.session} --gone",
        )
    if claimed == mine and row.guard is not None:
        identity.signal(row.guard, LOOK)
        identity.signal(row.guard, signal.SIGCONT)
    now = ready.follow(
        registry, row, deadline=began + timeout, ticker=Ticker(on_progress), restarted=claimed is not None
    )
    if now is None:
        return _start_again(supervisor, row, life(row), timeout=timeout, grace=grace, on_progress=on_progress)
    waited = round((time.monotonic() - began) * 1e3)
    return StartResult(server_of(now, life(now)), reused=False, waited_ms=waited, notes=found.notes)


def _start_again(
    supervisor: Supervisor,
    row: Row,
    alive: Life,
    *,
    timeout: float,
    grace: float | None,
    on_progress: Callable[[Progress], None] | None,
) -> StartResult:
    """Start what has no guard: it ended, or its guard was killed."""
    from devsup.supervisor.core import Supervisor as Same
    from devsup.supervisor.stop import stop_all_of

    job = jobs.find(supervisor.home.job(row.id))
    there = Same(row.cwd, supervisor.home.root, within=supervisor.within)
    there.project = row.project  # its folder may lie in another one: a submodule, say
    if alive is not Life.ENDED and alive is not Life.DEAD:
        _see_whether_it_may_run(there, row, job)
        (stopped,) = stop_all_of(
            supervisor.home, row.project, [row.id], [], grace=grace, sweep=False, within=supervisor.within,
            keeps_lease=True,
        ).results  # fmt: skip
        if stopped.error is not None:
            raise Busy(
                f"`{row.session}` could not be stopped: {stopped.message}",
                hint=f"devsup stop {row.app or row.session}",
            )
    result = there.start(
        row.app, command=row.command, port=row.asked_port, timeout=timeout, owner=row.owner,
        on_progress=on_progress, **_lifetimes(job),
    )  # fmt: skip
    notes = [_LOST_ENVIRONMENT] if alive is not Life.ENDED else []
    return result.replace(notes=[*result.notes, *notes])


def _see_whether_it_may_run(there: Supervisor, row: Row, job: Job | None) -> None:
    """
    Raise before anything is stopped what a start would: an exclusive app is not to end for one in vain.

    :raises LeaseHeldElsewhere, FleetUnreachable, ConfigInvalid: see `Supervisor.start`
    """
    from devsup.apps import configured
    from devsup.fleet import membership
    from devsup.supervisor import planning

    config = configured.load(there.project, there.home)
    plan = planning.plan(
        there, row.app, row.command, config, port=row.asked_port, env=None, environ=os.environ
    )
    found = planning.fleet_of(there, plan, config, os.environ)
    if found is None or not plan.exclusive:
        return
    from devsup.supervisor.leasing import Leasing

    try:
        member = membership.read(job.fleet) if job is not None else None
    except (KeyError, TypeError):
        member = None  # another version's
    mine = member.lease if member is not None and member.name == found[1].name else None
    Leasing(there.home, Registry(there.home), *found, frozenset()).keep(row, mine)


def _lifetimes(job: Job | None) -> dict[str, Any]:
    """Return what was asked for when the server was started, for the one that takes its place."""
    policy = job.policy if job is not None else {}
    asked = {name: policy[name] for name in ("restart", "idle_timeout", "ttl") if name in policy}
    parent = Identity(**policy["parent"]) if policy.get("parent") else None
    return asked | (
        {"with_parent": parent.pid} if parent is not None and not identity.is_gone(parent) else {}
    )

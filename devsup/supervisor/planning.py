"""
What a start is to run, what it is to its fleet, and what it lacks: read from files and the registry.

Nothing is changed here but the notes of the supervisor that asks.
"""

from __future__ import annotations

from devsup import identity
from devsup.apps import commands
from devsup.errors import NotFound
from devsup.registry import Registry
from devsup.supervisor.view import OVER, life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.apps.commands import Plan
    from devsup.config import Config
    from devsup.fleet.membership import Membership
    from devsup.fleet.settings import Settings
    from devsup.models import Row
    from devsup.supervisor.core import Supervisor

__all__ = ["fleet_of", "missing", "plan"]


def plan(
    supervisor: Supervisor,
    app: str | None,
    given: list[str] | None,
    config: Config | None,
    *,
    port: int | str | None,
    env: Mapping[str, str] | None,
    environ: Mapping[str, str],
) -> Plan:
    """
    Return what `Supervisor.start` is to run for ``app``, with the command ``given`` if any.

    :raises NotFound, Ambiguous, UsageError, ConfigInvalid: there is no such app, or not only one
    """
    try:
        return commands.plan(
            supervisor.project, supervisor.cwd, app=app, command=given, port=port, env=env, environ=environ,
            config=config,
        )  # fmt: skip
    except NotFound:
        running = _running(supervisor, app) if given is None else None
        if running is None:
            raise
        return commands.plan(
            supervisor.project, running.cwd, app=running.app, command=running.command, port=port, env=env,
            environ=environ, config=config,
        )  # fmt: skip


def fleet_of(
    supervisor: Supervisor, plan: Plan, config: Config | None, environ: Mapping[str, str]
) -> tuple[Settings, Membership] | None:
    """
    Return in which fleet a server of ``plan`` will be, and what it is to that.

    :raises ConfigInvalid: it is exclusive, and there is no fleet or nothing names its project
    """
    if not (plan.exclusive or environ.get("DEVSUP_FLEET") or (config is not None and config.fleet)):
        return None  # most have none, and pay for none
    from devsup.apps import fleets

    found = fleets.membership(supervisor.project, plan, config, environ)
    if found is None:
        return None
    fleet, membership, notes = found
    supervisor.notes += [note for note in notes if note not in supervisor.notes]
    return fleet, membership


def missing(supervisor: Supervisor, plan: Plan) -> list[str]:
    """Return a note on what a started app depends on and what does not run."""
    if not plan.depends_on:
        return []
    absent = [name for name in plan.depends_on if _running(supervisor, name) is None]
    if not absent:
        return []
    listed = " and ".join(f"`{name}`" for name in absent)
    verb = "does" if len(absent) == 1 else "do"
    how = f"`devsup up {plan.app}` starts them in their order"
    return [f"`{plan.app}` depends on {listed}, which {verb} not run: {how}"]


def _running(supervisor: Supervisor, name: str | None) -> Row | None:
    """Return the server that was started under ``name`` with a command of its own."""
    rows = Registry(supervisor.home).rows(scope=identity.here().key, project=supervisor.project)
    return next(
        (
            row
            for row in rows
            if name is not None and name in (row.app, row.session) and life(row) not in OVER
        ),
        None,
    )

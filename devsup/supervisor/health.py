"""
What a health check sees of this state folder and project, and the check itself.

One read of the registry, then a look at the processes: a row whose process has ended in between is read again
before it counts as dead.
"""

from __future__ import annotations

import os
import threading

from devsup import doctor
from devsup.doctor.scene import Conflict, Known, Scene
from devsup.errors import DevsupError
from devsup.registry import Registry
from devsup.supervisor.view import Sockets, is_so, life, server_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.models import Health, Pruned, Row
    from devsup.supervisor.core import Supervisor

__all__ = ["check", "rows", "scene"]


def check(supervisor: Supervisor, *, fix: bool) -> Health:
    """Return what is wrong; with ``fix`` mend what is safe to mend, and return what is wrong then."""
    examined = doctor.examine(scene(supervisor))
    if not fix:
        return doctor.health(examined)
    done = doctor.mend(examined)
    return doctor.health(doctor.examine(scene(supervisor)) if done else examined, done)


def scene(supervisor: Supervisor, *, whole: bool = True) -> Scene:
    """Return what a check looks at now; ``whole`` reads every page of the registry."""
    registry = Registry(supervisor.home)
    inspection, known, trouble = None, None, None
    try:
        inspection = registry.inspect(whole=whole)
        # Any other look would come upon the damage some time, and have the registry rebuilt unasked.
        known = None if inspection is not None and inspection.damage else rows(registry)
    except DevsupError as error:
        trouble = error
    pruned: list[list[Pruned]] = []
    one_at_a_time = threading.Lock()  # several parts ask, each in a thread of its own

    def prunable() -> list[Pruned]:
        with one_at_a_time:
            if known is None:
                return []
            if not pruned:
                pruned.append(supervisor.prune(dry_run=True).pruned)
            return pruned[0]

    def conflicts() -> list[Conflict]:
        from devsup.supervisor import portlist

        return [
            Conflict(one.plan.app or one.plan.session, one.port, portlist.who(one.use, one.by), one.instead)
            for one in portlist.conflicts(supervisor)
            if one.use is not None and not one.use.mine
        ]

    def guard(row: Row) -> None:
        from devsup.supervisor.core import Supervisor as Again

        Again(row.project, supervisor.home.root).start(row.app, timeout=_GUARDED)

    return Scene(
        home=supervisor.home,
        project=supervisor.project,
        cwd=supervisor.cwd,
        environ=dict(os.environ),
        registry=registry,
        inspection=inspection,
        known=known,
        trouble=trouble,
        prunable=prunable,
        conflicts=conflicts,
        prune=lambda orphans: supervisor.prune(orphans=orphans).pruned,
        guard=guard,
    )


#: Seconds for a server that runs to get its guard.
_GUARDED = 10.0


def rows(registry: Registry) -> list[Known]:
    """Return every row with what is true of it."""
    found = registry.rows()
    if not found:
        return []
    lives = [(row, life(row)) for row in found]
    sockets = Sockets(found)
    known = []
    for row, alive in lives:
        if not is_so(registry, row, alive):
            continue  # it was just being stopped, or given a guard
        known.append(Known(row, alive.value, server_of(row, alive, sockets)))
    return known

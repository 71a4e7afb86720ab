"""Locks: held for too long, held for the dead, waited for in a circle, mostly given up; work of the dead."""

from __future__ import annotations

import time

from devsup import identity
from devsup.doctor.scene import BAD, WARN, Seen
from devsup.locks import _seeing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.doctor.scene import Scene

__all__ = ["KINDS", "look"]

KINDS = ("lock_held", "lock_cycle", "lock_contended", "lock_inherited", "lock_silent", "operation_dead")
#: Seconds between two looks at what may be so for a moment only.
_AGAIN = 0.05
_CONTENDED = (
    "let fewer callers at it at once, or give them longer timeouts: `devsup locks --watch` shows them"
)


def look(scene: Scene, facts: list[str]) -> list[Seen]:
    """Ask every process that uses a lock of the state folder."""
    folder = scene.home.locks
    locks, oddities = _seeing.look_with_oddities(folder)
    facts.append(f"{sum(1 for one in locks if one.holders)} of {len(locks)} held")
    seen = [
        Seen(
            BAD if one.kind == "lock_cycle" else WARN,
            f"{one.kind}:{one.lock}",
            one.message,
            _CONTENDED if one.pid is None else f"kill {one.pid}",
        )
        for one in _seeing.troubles(locks)
    ]
    seen += [Seen(WARN, f"lock_silent:{one.who}", one.message, "devsup locks") for one in oddities]
    return [*seen, *_inherited(folder), *_dead_work(scene)]


def _inherited(folder: str) -> list[Seen]:
    first = _seeing.inherited(folder)
    if not first:
        return []
    time.sleep(_AGAIN)  # somebody may be just about to write that it is his now
    again = _seeing.inherited(folder)
    return [
        Seen(
            BAD,
            f"lock_inherited:{name}",
            f"`{name}` is held for a process that is dead, by pid {', '.join(map(str, pids))},"
            " which has inherited it",
            f"kill {' '.join(map(str, pids))}",
        )
        for name, pids in again
        if any(name == one for one, _ in first)
    ]


def _dead_work(scene: Scene) -> list[Seen]:
    """Return what a stop would wait for in vain, until it looks whether they live."""
    seen = []
    for one in scene.known or ():
        dead = [each for each in scene.registry.operations(one.row.id) if identity.is_gone(each.by)]
        if dead:
            numbers = [each.number for each in dead]

            def forget(numbers: list[int] = numbers) -> str:
                scene.registry.end_operations(numbers, used=False)
                return f"took {len(numbers)} of them back"

            seen.append(
                Seen(
                    WARN,
                    f"operation_dead:{one.row.id}",
                    f"work with `{one.row.session}` ({dead[0].purpose}) was left open by pid"
                    f" {dead[0].by.pid}, which is dead",
                    "devsup doctor --fix",
                    mend=forget,
                    project=one.row.project,
                    session=one.row.session,
                )
            )
    return seen

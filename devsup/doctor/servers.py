"""
Servers: rows against processes, both ways.

Rows without a process, processes without a row, guards that are missing, stops that nobody goes on with, dead
children that nobody takes note of.
"""

from __future__ import annotations

import time

from devsup import identity, masking, system
from devsup.doctor.scene import BAD, WARN, Seen
from devsup.models import ADOPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.doctor.scene import Known, Scene

__all__ = ["KINDS", "look"]

KINDS = (
    *("server_dead", "server_unguarded", "server_unhealthy", "server_zombies", "stop_abandoned"),
    "process_orphaned",
)
#: Seconds that a parent gets to take note of the end of a child.
_REAPED = 0.2


def look(scene: Scene, facts: list[str]) -> list[Seen] | None:
    """Compare them."""
    if scene.known is None:
        return None
    facts.append(f"{sum(1 for one in scene.known if one.life in ('live', 'orphaned'))} running")
    seen = [each for one in scene.known for each in _of_row(scene, one)]
    return [*seen, *_zombies(scene), *_orphans(scene)]


def _of_row(scene: Scene, one: Known) -> list[Seen]:
    row, name = one.row, f"`{one.row.session}` of `{one.row.project}`"

    def seen(level: str, kind: str, message: str, fix: str, **more: object) -> list[Seen]:
        about = {"project": row.project, "session": row.session}
        return [Seen(level, f"{kind}:{row.id}", message, fix, **about, **more)]  # type: ignore[arg-type]  # by name

    if one.life == "dead":
        return seen(
            WARN,
            "server_dead",
            f"{name} stands in the registry as {row.state.value}, and none of its processes is left",
            "devsup prune",
            mend=lambda: _prune(scene, orphans=False),
        )
    if one.life not in ("live", "orphaned"):
        return []
    if row.stop is not None and identity.is_gone(row.stop.by) and one.life == "orphaned":
        return seen(
            BAD,
            "stop_abandoned",
            f"{name} was being stopped by pid {row.stop.by.pid}, which is dead, and runs on",
            scene.command("stop", row),
        )
    if one.life == "orphaned" and row.reason != ADOPTED:
        fix, mend = scene.command("start", row), None
        if row.app is None:
            fix = scene.command("restart", row)  # its command would have to be typed again
        else:
            mend = _guarding(scene, one)
        message = f"{name} runs without its guard: nobody restarts it, bounds its log or sees its end"
        return seen(WARN, "server_unguarded", message, fix, mend=mend)
    if one.server.state.value == "unhealthy":
        what = (
            "nothing of it listens any more" if one.server.url is None else "it does not answer as it should"
        )
        return seen(BAD, "server_unhealthy", f"{name} is unhealthy: {what}", scene.command("restart", row))
    return []


def _guarding(scene: Scene, one: Known) -> Callable[[], str]:
    def mend() -> str:
        scene.guard(one.row)
        return f"`{one.row.session}` has a guard again"

    return mend


def _prune(scene: Scene, *, orphans: bool) -> str:
    done = [one.what for one in scene.prune(orphans) if one.done and (one.kind == "orphan") == orphans]
    verb = "ended" if orphans else "removed"
    return (
        f"{verb} {', '.join(map(masking.text, done[:5]))}{' and more' if len(done) > 5 else ''}"
        if done
        else ("nothing was left to do")
    )


def _orphans(scene: Scene) -> list[Seen]:
    return [
        Seen(
            WARN,
            f"process_orphaned:{one.what.partition(' (')[0].removeprefix('pid ')}",
            f"{masking.text(one.what)} carries devsup's marker, and {one.why.partition(';')[0]}",
            "devsup prune --orphans",
            mend=lambda: _prune(scene, orphans=True),
        )
        for one in scene.prunable()
        if one.kind == "orphan"
    ]


# -- dead children ---------------------------------------------------------------------------------------


def _zombies(scene: Scene) -> list[Seen]:
    first = _dead_children(scene)
    if not first:
        return []
    time.sleep(_REAPED)
    seen = []
    for server, dead in _dead_children(scene).items():
        left = sorted(dead & first.get(server, set()))
        if left:
            row = next(one.row for one in scene.known or () if one.row.id == server)
            pids = ", ".join(str(pid) for pid, _ in left[:5])
            seen.append(
                Seen(
                    WARN,
                    f"server_zombies:{server}",
                    f"`{row.session}` of `{row.project}` does not take note of children that have ended"
                    f" ({len(left)}: pid {pids})",
                    scene.command("restart", row),
                    project=row.project,
                    session=row.session,
                )
            )
    return seen


def _dead_children(scene: Scene) -> dict[str, set[tuple[int, int]]]:
    """Return the zombies below each server's processes, as pid and start."""
    processes = {}
    for pid in system.all_pids():
        try:
            info = system.process(pid)
        except OSError:
            continue
        if info is not None:
            processes[pid] = info
    roots = {}
    for one in scene.known or ():
        for who in (one.row.leader, one.row.guard):
            if one.life in ("live", "orphaned") and who is not None and not identity.is_gone(who):
                roots[who.pid] = one.row.id
    found: dict[str, set[tuple[int, int]]] = {}
    for info in processes.values():
        if info.state != "Z":
            continue
        above, steps = info.ppid, 0
        while above not in roots and above in processes and steps < 64:
            above, steps = processes[above].ppid, steps + 1
        if above in roots:
            found.setdefault(roots[above], set()).add((info.pid, info.ticks))
    return found

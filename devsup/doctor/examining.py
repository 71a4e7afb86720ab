"""
Look at all parts at once, and mend what may be mended.

Parts that wait for other programs cost no time beside the others: each has a thread of its own. One that
cannot look because of the state folder says so as a finding; the others go on.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from devsup.doctor import completions, environment, locks, logs, ports, redis, registry, servers
from devsup.doctor.scene import BAD, Seen, found
from devsup.errors import DevsupError
from devsup.models import Health, HealthFinding, HealthPart
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from devsup.doctor.scene import Scene

__all__ = ["CHEAP", "PARTS", "Examined", "examine", "health", "mend"]

#: The parts, in the order in which they are shown.
PARTS: dict[str, Any] = {
    "registry": registry,
    "locks": locks,
    "servers": servers,
    "ports": ports,
    "logs": logs,
    "environment": environment,
    "completions": completions,
    "redis": redis,
}
#: Those that start no program and change while nobody touches the machine: what a monitor looks at.
CHEAP = ("registry", "locks", "servers", "ports", "logs")


class Examined(Record):
    """What a part has seen; ``seen`` is None for one that was skipped, ``ms`` how long it took."""

    part: str
    ms: float
    seen: list[Seen] | None
    #: What a person may like to know of it though it is well.
    facts: list[str]
    #: Whether it could look at everything: else what it has not seen may be there all the same.
    whole: bool = True


def examine(scene: Scene, parts: Sequence[str] = tuple(PARTS)) -> list[Examined]:
    """Return what each of ``parts`` has seen."""
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(lambda part: _look(scene, part), parts))


def _look(scene: Scene, part: str) -> Examined:
    began, facts, whole = time.monotonic(), list[str](), True
    try:
        seen = PARTS[part].look(scene, facts)
    except DevsupError as error:
        seen, whole = [found(error, project=scene.project if part == "ports" else None)], False
    except OSError as error:
        message = f"the {part} cannot be looked at: {error}"
        seen, whole = [Seen(BAD, f"{part}_unreadable", message, "give this user access to it")], False
    return Examined(part, round((time.monotonic() - began) * 1e3, 1), seen, facts, whole)


def health(examined: Iterable[Examined], notes: Sequence[str] = ()) -> Health:
    """Return the answer that all this is."""
    parts = [
        HealthPart(
            one.part,
            _status(one.seen),
            one.ms,
            [
                HealthFinding(each.id, each.message, each.fix, each.mend is not None)
                for each in one.seen or ()
            ],
        )
        for one in examined
    ]
    facts = [f"{one.part}: {fact}" for one in examined for fact in one.facts]
    worst = max((part.status for part in parts), key=_WORSE.index, default="ok")
    return Health(parts, "ok" if worst == "skipped" else worst, [*notes, *facts])


_WORSE = ("skipped", "ok", "warn", "bad")


def _status(seen: list[Seen] | None) -> str:
    if seen is None:
        return "skipped"
    return max((one.level for one in seen), key=_WORSE.index, default="ok")


def mend(examined: Iterable[Examined]) -> list[str]:
    """Mend what is safe to mend, each command once, and return what was done, in sentences."""
    done: dict[str, str] = {}
    for one in examined:
        for each in one.seen or ():
            if each.mend is None or each.fix in done:
                continue
            try:
                done[each.fix] = f"fixed `{each.id}`: {each.mend()}"
            except (DevsupError, OSError) as error:
                done[each.fix] = f"`{each.id}` could not be fixed: {error}"
    return list(done.values())

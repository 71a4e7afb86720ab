"""
Who holds and who waits, in all processes that use one folder; and what is wrong with that.

A look takes no lock and changes nothing, except that what the dead have left behind is removed. What it finds
was so at that moment, lock by lock.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from devsup import identity, system
from devsup.clock import iso, now_ms
from devsup.errors import RegistryUnusable
from devsup.locks import _owner, _publish, _record
from devsup.locks._stats import is_contended
from devsup.models import Identity, LockStatus
from devsup.records import Record

if TYPE_CHECKING:
    from devsup.locks._core import Ticket
    from devsup.locks._manager import LockManager
    from devsup.locks._publish import Oddity
    from devsup.locks._record import Holder
    from devsup.locks._rw import Resource

__all__ = [
    "LONG_HELD",
    "Trouble",
    "findings",
    "inherited",
    "left_behind",
    "look",
    "look_with_oddities",
    "of_resource",
    "troubles",
]

#: Seconds after which a lock is held for suspiciously long.
LONG_HELD = 60.0
_LOCK = ".lock"
#: Seconds after which what is still being written belongs to a process that was killed meanwhile.
_WRITTEN = 86_400.0


def look(folder: str, *, own: LockManager | None = None) -> list[LockStatus]:
    """Return all locks of ``folder``, by name; ``own`` are asked directly, others by their sockets."""
    return look_with_oddities(folder, own=own)[0]


def look_with_oddities(
    folder: str, *, own: LockManager | None = None
) -> tuple[list[LockStatus], list[Oddity]]:
    """
    Return all locks of ``folder``, and who could not be asked.

    :raises RegistryUnusable: something else is in its place, or it may not be read
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise RegistryUnusable(
            f"`{folder}` cannot be read: {error.strerror}",
            hint="move it away, or set `DEVSUP_HOME` to a folder of your own",
        ) from error
    locks = [_of_file(folder, name, names) for name in names if name.endswith(_LOCK)]
    states, oddities = _publish.ask(folder, but=None if own is None else os.getpid())
    if own is not None:
        states[""] = {"by": identity.me().asdict(), "locks": own.own()}
    for who, state in states.items():
        try:
            by = Identity(**state["by"])
            locks += [_of_state(by.pid, one) for one in state["locks"]]
        except (TypeError, KeyError):
            message = f"pid {who.partition('-')[0]} told of its locks in a way that is not understood"
            oddities.append(_publish.Oddity(who, message))
    return sorted(locks, key=lambda one: (one.name, one.kind)), oddities


def left_behind(folder: str) -> list[str]:
    """Return the files in ``folder`` by which the dead said that they wait, and where they could be asked."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [path for name in names if _is_left(name, path := f"{folder}/{name}")]


def _is_left(name: str, path: str) -> bool:
    if name.endswith(_publish.SUFFIX):
        return _publish.is_left(path)
    if f"{_LOCK}~" not in name and not name.endswith(f"{_publish.SUFFIX}~"):
        return False
    waiter = _record.waiter(path)
    if waiter is not None:
        return waiter.is_gone
    try:
        return os.lstat(path).st_mtime < time.time() - _WRITTEN
    except OSError:
        return False


# -- one lock ------------------------------------------------------------------------------------------


def _of_file(folder: str, name: str, names: list[str]) -> LockStatus:
    path = f"{folder}/{name}"
    holder = _record.who_holds(path)
    files = [f"{folder}/{one}" for one in names if one.startswith(f"{name}~")]
    waiters = _record.who_waits(path, files) if files else []
    called = (holder and holder.name) or next((one.name for one in waiters if one.name), None)
    shown = [_shown(holder)] if holder is not None else []
    return LockStatus(
        name=called or _record.name_in(path) or name.removesuffix(_LOCK),
        kind="process",
        holder=shown[0] if shown else None,
        holders=shown,
        waiters=[_shown(one) for one in waiters],
        stats=_record.stats(path),
    )


def _shown(holder: Holder) -> dict[str, Any]:
    age = holder.age
    return _person(holder.by.pid, holder.who, "write", holder.purpose, age)


def _person(pid: int, who: str, mode: str, purpose: str, age: float) -> dict[str, Any]:
    # Made of the age: the clock on the wall may have been set since.
    since = iso(now_ms() - round(age * 1e3))
    return {
        "pid": pid, "who": who, "mode": mode, "purpose": purpose, "since": since, "age_ms": round(age * 1e3),
    }  # fmt: skip


def of_resource(resource: Resource) -> dict[str, Any]:
    """Return the state of a lock of this process, as JSON can hold it."""
    now = time.monotonic()

    def shown(ticket: Ticket, since: float) -> dict[str, Any]:
        return {
            "who": _owner.shown(ticket.who),
            "mode": "write" if ticket.write else "read",
            "purpose": getattr(ticket, "purpose", ""),
            "age": max(0.0, now - since),
        }

    return {
        "name": resource.label,
        "holders": [shown(ticket, since) for ticket, since in resource.holders()],
        "waiters": [shown(ticket, since) for ticket, since in resource.waiting()],
        "stats": resource.stats(),
    }


def _of_state(pid: int, state: dict[str, Any]) -> LockStatus:
    holders = [_person(pid, **one) for one in state["holders"]]
    return LockStatus(
        name=state["name"],
        kind="rw",
        holder=holders[0] if holders else None,
        holders=holders,
        waiters=[_person(pid, **one) for one in state["waiters"]],
        stats=state["stats"],
    )


# -- left by the dead -----------------------------------------------------------------------------------


def inherited(folder: str) -> list[tuple[str, list[int]]]:
    """
    Return the locks between processes that are held though their holder is dead: the name, and who has it.

    A process that was forked while it was held has the holder's open file, and keeps the lock by that.
    """
    found = []
    for name in _lock_files(folder):
        path = f"{folder}/{name}"
        if _record.holder_is_gone(path):
            found.append((_record.name_in(path) or name.removesuffix(_LOCK), _who_has_it(path)))
    return [(name, pids) for name, pids in found if pids]


def _lock_files(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(_LOCK))
    except OSError:
        return []


def _who_has_it(path: str) -> list[int]:
    """Return the processes that hold the file by `flock`; none where the system does not tell."""
    real, found = os.path.realpath(path), []
    for pid in system.all_pids():
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") == real and _locks(f"/proc/{pid}/fdinfo/{name}"):
                    found.append(pid)
                    break
            except OSError:
                continue
    return found


def _locks(path: str) -> bool:
    with open(path, encoding="ascii", errors="replace") as file:
        return any(line.startswith("lock:") and "FLOCK" in line for line in file)


# -- what is wrong -------------------------------------------------------------------------------------


class Trouble(Record):
    """
    One thing that a person should look at.

    ``kind`` is `lock_cycle`, `lock_held` or `lock_contended`, ``pid`` who could end it: one of the circle, or
    the holder.
    """

    kind: str
    lock: str
    message: str
    pid: int | None


def findings(locks: list[LockStatus]) -> list[str]:
    """Return what a person should look at: circles of waiting, long holds, attempts that mostly fail."""
    return [one.message for one in troubles(locks)]


def troubles(locks: list[LockStatus]) -> list[Trouble]:
    """Return the same as `findings`, for a program."""
    found = _circles(locks)
    for lock in locks:
        found += [
            Trouble(
                "lock_held",
                lock.name,
                f"`{lock.name}` has been held for {one['age_ms'] / 1e3:.0f} s by {_named(one)}",
                one["pid"],
            )
            for one in lock.holders
            if one["age_ms"] > LONG_HELD * 1e3
        ]
        if is_contended(lock.stats):
            failures = lock.stats["failures"]
            attempts = failures + lock.stats["acquisitions"]
            message = f"`{lock.name}` is contended: {failures} of {attempts} attempts gave up"
            found.append(Trouble("lock_contended", lock.name, message, None))
    return found


def _named(one: dict[str, Any]) -> str:
    return f"pid {one['pid']}" + (f" ({one['purpose']})" if one["purpose"] else "")


def _circles(locks: list[LockStatus]) -> list[Trouble]:
    """Return each circle of threads and tasks that wait for each other, once."""
    waits: dict[tuple[int, str], list[tuple[str, tuple[int, str], str]]] = {}
    for lock in locks:
        for waiter in lock.waiters:
            for holder in lock.holders:
                waits.setdefault((waiter["pid"], waiter["who"]), []).append(
                    (lock.name, (holder["pid"], holder["who"]), _named(holder))
                )
    found, reported = [], set()
    for start in waits:
        circle = _circle(start, waits)
        if circle is not None and (members := frozenset(one[1] for one in circle)) not in reported:
            reported.add(members)
            steps = ", which waits for ".join(f"`{name}`, held by {holder}" for name, _, holder in circle)
            name = ",".join(sorted({one[0] for one in circle}))
            message = f"deadlock: pid {start[0]} waits for {steps}"
            found.append(Trouble("lock_cycle", name, message, start[0]))
    return found


def _circle(
    start: tuple[int, str], waits: dict[tuple[int, str], list[tuple[str, tuple[int, str], str]]]
) -> list[tuple[str, tuple[int, str], str]] | None:
    """Return a way from ``start`` back to it, or None."""
    seen: set[tuple[int, str]] = set()
    todo: list[tuple[tuple[int, str], list[tuple[str, tuple[int, str], str]]]] = [(start, [])]
    while todo:
        at, path = todo.pop()
        for step in waits.get(at, ()):
            if step[1] == start:
                return [*path, step]
            if step[1] not in seen:
                seen.add(step[1])
                todo.append((step[1], [*path, step]))
    return None

"""
Who asks for a lock, what they hold already, and whether they may have it now.

One rule makes deadlocks impossible: whoever holds a lock asks only for a later one. First come locks between
hosts, by name; then locks between processes, by path; then named locks of this process, by name; then
nameless ones, in the order in which they were made; then locks between processes that are made to be the
last. A thread or task that breaks the rule is refused at once; asking for what it holds already is the
plainest way to break it.

Each thread and task changes only its own entry of the one table here, so no lock is needed. Loaded by every
start, so it imports nothing: asyncio is looked at only where somebody else has loaded it.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident

from devsup.errors import LockOrderError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    Order = tuple[int, str, int]

    class Link(Protocol):
        """A lock that somebody holds, as the order sees it."""

        @property
        def order(self) -> Order | None:
            """The place of the lock among all locks; None: it has none, and is not looked at here."""

        @property
        def label(self) -> str:
            """The lock's name, for people."""


__all__ = ["HELD", "check", "held", "in_a_loop", "me", "refuse_in_a_loop", "shown", "take", "untake"]


#: What each thread (by number) and task holds: the last lock, or that and what it held before.
HELD: dict[Any, Link | tuple[Link, Any]] = {}


def me() -> Any:
    """Return who runs now: the task, or the number of the thread."""
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is not None and in_a_loop():
        task = tasks.current_task()
        if task is not None:
            return task
    return get_ident()


def in_a_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None  # noqa: SLF001 - documented


def refuse_in_a_loop(call: str, instead: str) -> None:
    """
    Refuse what would keep all tasks of an event loop waiting.

    :raises UsageError: one runs in this thread
    """
    if in_a_loop():
        raise UsageError(
            f"`{call}` would block the running event loop", hint=f"use `{instead}` there, which waits for it"
        )


def check(link: Link, owner: Any) -> None:
    """
    See whether ``owner`` may ask for the lock of ``link`` now.

    :raises LockOrderError: it holds this one or a later one
    """
    links, order = held(owner), link.order
    if not links or order is None or (links[0].order or order) < order:
        return
    last, asked = links[0].label, link.label
    if any(one.order == link.order for one in links):
        last = asked
        message = f"{shown(owner)} already holds the lock `{asked}`, and would wait for itself"
    else:
        message = (
            f"{shown(owner)} holds the lock `{last}`, so it cannot ask for `{asked}`, which comes before"
        )
    raise LockOrderError(
        message,
        hint=f"take `{asked}` first, or let go of `{last}` before",
        details={"held": last, "asked": asked},
    )


def held(owner: Any) -> list[Link]:
    """Return the locks that ``owner`` holds, the last first."""
    links, entry = [], HELD.get(owner)
    while isinstance(entry, tuple):
        links.append(entry[0])
        entry = entry[1]
    return links if entry is None else [*links, entry]


def take(link: Link, owner: Any) -> None:
    """Note that ``owner`` holds the lock of ``link``."""
    if link.order is None:
        return
    before = HELD.get(owner)
    HELD[owner] = link if before is None else (link, before)


def untake(link: Link, owner: Any) -> None:
    """Note that ``owner`` holds the lock of ``link`` no more; locks may be let go in any order."""
    if link.order is None:
        return
    links = [one for one in held(owner) if one is not link]
    HELD.pop(owner, None)
    for one in reversed(links):
        take(one, owner)


def shown(owner: Any) -> str:
    """Return the name of a thread or task: the same for the same one while it lives."""
    if not isinstance(owner, int):
        return f"task {owner.get_name()}"
    threading = sys.modules.get("threading")
    thread = threading and threading._active.get(owner)  # noqa: SLF001 - no call finds one by its number
    return f"thread {thread.name if thread else owner}"


def _forget_others() -> None:
    """In a fork's child only the thread that forked goes on; what the others held is nobody's."""
    mine = (get_ident(), me())
    for owner in [*HELD]:
        if owner not in mine:
            del HELD[owner]


os.register_at_fork(after_in_child=_forget_others)

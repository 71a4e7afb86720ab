"""
Which servers of a project run though devsup did not start them.

Two looks. Next.js 16 and later leaves a locked file in its folder, also before it listens: the folders two
levels down are asked for that file. And whoever listens with a folder of the project as his own is there,
whatever he is: only this user's sockets that no server of ours is known by are looked for. `list` does both
each time, so neither reads a manifest nor loads what detects apps. Reads only.
"""

from __future__ import annotations

import os

from devsup import system
from devsup.models import Unmanaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from devsup.system import Listener

__all__ = ["find_unmanaged", "listening_in"]

_DEPTH = 2
_SKIPPED = frozenset({"node_modules", "dist", "build", "out", "coverage", "target", "vendor"})
_LOCK = ".next/dev/lock"


def find_unmanaged(
    project: str,
    cwd: str,
    *,
    known: Collection[str],
    sockets: Mapping[int, Listener],
    sessions: Collection[int],
    is_ours: Callable[[int, Listener], bool],
) -> list[Unmanaged]:
    """
    Return the servers that run in ``project`` or ``cwd`` and are not ours.

    ``known`` are the folders that our own Next.js servers may have a lock in; ``sockets``, by inode, those
    that may be a stranger's; whoever is in one of the ``sessions`` is ours. What is left to doubt ``is_ours``
    says.
    """
    folders = dict.fromkeys([*_folders(project, _DEPTH), cwd])
    found = []
    for folder in folders:
        if folder not in known and os.path.exists(f"{folder}/{_LOCK}"):
            found += _running(folder)
    if not sockets:
        return found
    named = {one.pid for one in found}
    for pid, listener, folder in listening_in(project, sockets, sessions):
        if pid not in named and not is_ours(pid, listener):
            # The lock's file was empty up to 16.0: then this is who has it.
            found = [one for one in found if one.pid is not None or one.cwd != folder]
            found.append(_listening(pid, listener, folder))
    return found


def listening_in(
    project: str, sockets: Mapping[int, Listener], sessions: Collection[int] = ()
) -> list[tuple[int, Listener, str]]:
    """
    Return who has one of ``sockets`` in a folder of ``project``: pid, socket and folder, by port.

    Of several sockets of one process it is the lowest port; of several processes that share one, the first
    that was there. Nobody of ``sessions`` is looked at.
    """
    inside = project.rstrip("/") + "/"
    holders: dict[int, tuple[int, int, str]] = {}
    for pid in system.all_pids():
        if _session(pid) in sessions:  # the cheapest to see, and with many servers true of most
            continue
        folder = system.cwd(pid)
        if folder is None or not f"{folder}/".startswith(inside):
            continue
        held = sockets.keys() & system.socket_inodes(pid)
        if not held:
            continue
        inode = min(held, key=lambda one: (sockets[one].port, one))
        age = _ticks(pid)
        if inode not in holders or (age, pid) < holders[inode][:2]:
            holders[inode] = (age, pid, folder)
    found = [(pid, sockets[inode], folder) for inode, (_, pid, folder) in holders.items()]
    return sorted(found, key=lambda one: (one[1].port, one[0]))


def _listening(pid: int, listener: Listener, folder: str) -> Unmanaged:
    from devsup import readiness
    from devsup.apps import processes

    url = readiness.url_of(listener)
    return Unmanaged(processes.kind_of(pid), pid, listener.port, url, folder, None)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _ticks(pid: int) -> int:
    try:
        info = system.process(pid)
    except OSError:
        return 0
    return 0 if info is None else info.ticks


def _running(folder: str) -> list[Unmanaged]:
    from devsup.apps import nextlock

    server = nextlock.running(folder)
    if server is None:
        return []
    return [Unmanaged("next", server["pid"], server["port"], server["url"], folder, server["log"])]


def _folders(folder: str, depth: int) -> Iterator[str]:
    yield folder
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            below = [
                entry.path
                for entry in entries
                if entry.name[0] != "." and entry.name not in _SKIPPED and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return
    for path in below:
        yield from _folders(path, depth - 1)

"""
Which Next.js servers of a project run though devsup did not start them.

Next.js 16 and later leaves a locked file in its folder. `list` looks for it each time, so this neither reads
a manifest nor loads what detects apps: it asks the folders two levels down for that file. Reads only.
"""

from __future__ import annotations

import os

from devsup.models import Unmanaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["find_unmanaged"]

_DEPTH = 2
_SKIPPED = frozenset({"node_modules", "dist", "build", "out", "coverage", "target", "vendor"})
_LOCK = ".next/dev/lock"


def find_unmanaged(project: str, cwd: str, *, known: Collection[str]) -> list[Unmanaged]:
    """Return the Next.js servers that run in ``project`` or ``cwd``, in folders that are not in ``known``."""
    folders = dict.fromkeys([*_folders(project, _DEPTH), cwd])
    found = []
    for folder in folders:
        if folder not in known and os.path.exists(f"{folder}/{_LOCK}"):
            found += _running(folder)
    return found


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

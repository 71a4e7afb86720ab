"""Logs: can they be written, what do they take, and what is left of the disk?"""

from __future__ import annotations

import os

from devsup.doctor.scene import BAD, WARN, Seen
from devsup.masking import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.doctor.scene import Scene

__all__ = ["KINDS", "look"]

KINDS = ("logs_unwritable", "logs_surplus", "disk_low", "disk_full", "inodes_low")
#: Bytes left on the disk below which servers and their tools soon fail, and below which they do.
_LOW, _FULL = 512 * 2**20, 32 * 2**20
#: Bytes that a prune would free, beyond which it is worth a word.
_SURPLUS = 256 * 2**20
_FEW_FILES = 1000
_ROOM = "make room on the disk of `{}`"


def look(scene: Scene, facts: list[str]) -> list[Seen] | None:
    """Look at the folder and its disk; None before anything was started."""
    folder = scene.home.logs
    if not os.path.lexists(scene.home.root):
        return None
    if not os.path.isdir(folder):
        if os.path.lexists(folder):
            moved = f"mv {quoted(folder)} {quoted(folder + '.old')}"
            return [Seen(BAD, "logs_unwritable", f"`{folder}` is no folder", moved)]
        return []
    seen = []
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        fix = (
            "set `DEVSUP_HOME` to a folder that can be written"
            if read_only
            else f"chmod u+rwx {quoted(folder)}"
        )
        seen.append(Seen(BAD, "logs_unwritable", f"no log can be written in `{folder}`", fix))
    disk = os.statvfs(folder)
    left, size = disk.f_bavail * disk.f_frsize, _size(folder)
    facts.append(f"{_mib(size)} of logs, {_mib(left)} left on the disk")
    surplus = sum(one.bytes or 0 for one in scene.prunable() if one.kind in ("log", "registry", "job"))
    fix, mend = (_ROOM.format(folder), None) if not surplus else ("devsup prune", lambda: _prune(scene))
    if left < _LOW:
        kind, level = ("disk_full", BAD) if left < _FULL else ("disk_low", WARN)
        can = f"; {_mib(surplus)} of it are logs that nobody needs" if surplus else ""
        message = f"{_mib(left)} are left on the disk of `{folder}`{can}"
        seen.append(Seen(level, f"{kind}:{folder}", message, fix, mend=mend))
    elif surplus > _SURPLUS:
        message = f"{_mib(surplus)} of logs in `{folder}` are of servers that are no more"
        seen.append(Seen(WARN, "logs_surplus", message, fix, mend=mend))
    if disk.f_files and disk.f_favail < _FEW_FILES:
        message = f"{disk.f_favail} more files can be made on the disk of `{folder}`"
        seen.append(Seen(BAD, f"inodes_low:{folder}", message, fix, mend=mend))
    return seen


def _prune(scene: Scene) -> str:
    freed = sum(one.bytes or 0 for one in scene.prune(False) if one.done)
    return f"freed {_mib(freed)}"


def _size(folder: str) -> int:
    total = 0
    for below, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(below, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _mib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"

"""
The folders beyond which a caller may not reach, for programs that act for somebody they do not trust fully.

Pure functions of paths and of the symbolic links on them, at the moment of the call.
"""

from __future__ import annotations

import os

from devsup.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check", "inside"]


def inside(path: str, folders: Sequence[str]) -> bool:
    """Tell whether ``path`` really lies in one of ``folders`` (real paths), or is one."""
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def check(path: str, folders: Sequence[str] | None) -> None:
    """
    Pass where ``path`` may be used; without ``folders`` every one may.

    :raises UsageError: it lies outside of them
    """
    if folders is None or inside(path, folders):
        return
    named = ", ".join(f"`{folder}`" for folder in folders) or "none"
    raise UsageError(
        f"`{path}` is outside of the folders that this caller may use: {named}",
        hint="name a folder within them, or allow this one too",
    )

"""
To which worktree, repository and branch a project belongs.

Git's own files say so; no git is started, since `list --everywhere` asks it of each project. Reads only; what
cannot be read is not known.
"""

from __future__ import annotations

import os

from devsup.records import Record
from devsup.smallfile import contents

__all__ = ["Place", "find"]

#: Letters of a commit that are shown where no branch is checked out.
_SHORT = 7
_HEADS = "ref: refs/heads/"


class Place(Record):
    """
    ``worktree`` is the folder above, ``repository`` what all worktrees of it share; None outside of git.

    ``branch`` is the one that is checked out, or the beginning of the commit.
    """

    worktree: str | None
    repository: str | None
    branch: str | None


def find(folder: str) -> Place:
    """Return the worktree that ``folder`` is in, or is."""
    at = folder
    while True:
        git = _git_dir(f"{at}/.git", at)
        if git is not None:
            common = _line(f"{git}/commondir")
            shared = os.path.normpath(os.path.join(git, common)) if common else git
            return Place(at, shared, _branch(_line(f"{git}/HEAD")))
        above = os.path.dirname(at)
        if above == at:
            return Place(None, None, None)
        at = above


def _git_dir(path: str, worktree: str) -> str | None:
    if os.path.isdir(path):
        return path
    told = _line(path)
    if told is None or not told.startswith("gitdir:"):
        return None
    return os.path.normpath(os.path.join(worktree, told.removeprefix("gitdir:").strip()))


def _branch(head: str | None) -> str | None:
    if head is None:
        return None
    if head.startswith(_HEADS):
        return head.removeprefix(_HEADS)
    return head[:_SHORT] if head.isalnum() else None


def _line(path: str) -> str | None:
    try:
        return os.fsdecode(contents(path) or b"").partition("\n")[0].strip() or None
    except OSError:
        return None

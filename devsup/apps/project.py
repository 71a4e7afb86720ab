"""
Which project does a folder belong to?

The answer is a real path, so that every subfolder and every symlink of one project gives the same one. Only
reads; safe to call from anywhere at any time.
"""

from __future__ import annotations

import os

from devsup.errors import UsageError
from devsup.smallfile import contents

__all__ = ["PYTHON_FILES", "find_project", "outside_of_generated", "upward"]

#: Any of these makes a folder a Python project.
PYTHON_FILES = ("pyproject.toml", "requirements.txt", "manage.py")

#: Folders of what is installed or built: no package in them is an app, even to one who stands there.
GENERATED = frozenset(("node_modules", ".next", ".expo"))

#: Folders, as all hidden ones, that are no part of the repository around them: what can be run there was put
#: there to be tried out.
_APART = frozenset(("tmp", "temp"))


def find_project(start: str) -> str:
    """
    Return the root of the project that ``start`` lies in.

    That is the nearest folder upward with a `devsup.toml`, else the root of the git worktree, else the
    workspace root (npm, yarn, bun, pnpm), else the nearest folder with a `package.json`, else the nearest
    Python project, else ``start`` itself. A package to be run that lies below a hidden or temporary folder of
    a repository is not a part of it.

    :raises UsageError: ``start`` is no folder
    """
    here = os.path.realpath(start)
    if not os.path.isdir(here):
        raise UsageError(f"`{start}` is not a folder", hint="name an existing folder")
    git = ""
    for folder in upward(here):
        if os.path.isfile(os.path.join(folder, "devsup.toml")):
            return folder
        if not git and (kind := _git_root(folder)):
            git = folder
            # Two worktrees are two projects: one that lies inside its main repository, or beside it below a
            # common devsup.toml, is not a part of what is above it.
            if kind == "worktree":
                break
    here = outside_of_generated(here)
    if apart := _apart(here, git or "/"):
        return _package_root(here, apart)
    return git or _package_root(here) or _python_root(here) or here


def upward(folder: str, stop: str = "/") -> list[str]:
    """Return ``folder`` and the folders above it, up to and with ``stop``, or the root of the file system."""
    folders = [folder]
    while folder != stop:
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folders.append(folder := parent)
    return folders


def outside_of_generated(folder: str, below: str = "/") -> str:
    """Return ``folder``, or the one above all that is installed or built around it, up to ``below``."""
    start = len(below.rstrip("/"))
    parts = folder[start:].split("/")
    for index, part in enumerate(parts):
        if part in GENERATED:
            return folder[:start] + "/".join(parts[:index]) or "/"
    return folder


def _git_root(folder: str) -> str:
    """Tell what git keeps in ``folder``: "repository", "worktree" (a linked one), or "" for neither."""
    path = os.path.join(folder, ".git")
    try:
        # A folder called `.git` that is no repository (a left-over, a mount point) roots nothing.
        if os.path.exists(os.path.join(path, "HEAD")):
            return "repository"
        line = os.fsdecode(contents(path) or b"")
    except OSError:
        return ""
    if not line.startswith("gitdir:"):
        return ""
    target = line[len("gitdir:") :].strip()
    if os.path.basename(os.path.dirname(target)) == "worktrees":
        return "worktree"
    # A submodule is a part of the project that contains it: its packages are installed and run from there.
    return "" if "/modules/" in target else "repository"


def _apart(here: str, stop: str) -> str:
    """Return the folder below ``stop`` that sets what is run around ``here`` apart from the rest, if any."""
    runnable = False
    for folder in upward(here, stop):
        name = os.path.basename(folder)
        if folder == stop or not any(_sets_apart(part) for part in folder[len(stop) :].split("/")):
            return ""
        from devsup.apps import manifest  # most projects are known by a file of their own, or by git

        package = None if runnable else manifest.read(folder)
        if isinstance(package, manifest.Package):
            runnable = "dev" in package.scripts or "start" in package.scripts
        if runnable and _sets_apart(name):
            return folder
    return ""


def _sets_apart(name: str) -> bool:
    return name in _APART or name[:1] == "."


def _package_root(here: str, stop: str = "/") -> str:
    from devsup.apps import manifest

    nearest = ""
    for folder in upward(here, stop):
        if os.path.isfile(os.path.join(folder, "pnpm-workspace.yaml")):
            return folder
        package = manifest.read(folder)
        if package is None:
            continue
        if isinstance(package, manifest.Package) and package.workspaces is not None:
            return folder
        nearest = nearest or folder
    return nearest


def _python_root(here: str) -> str:
    for folder in upward(here):
        if any(os.path.isfile(os.path.join(folder, name)) for name in PYTHON_FILES):
            return folder
    return ""

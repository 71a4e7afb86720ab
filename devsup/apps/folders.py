"""
Where the apps of a project may lie: its root, its workspaces, two levels of folders.

Every folder is listed and every `package.json` read at most once per `Folders`, which lives for one call.
"""

from __future__ import annotations

import os

from devsup.apps import manifest, python
from devsup.apps.project import find_project, upward

__all__ = ["SKIPPED", "Folders"]

#: Folders in which no app of the project lies: installed, built or made for tests. Dot folders are skipped
#: too.
SKIPPED = frozenset(
    (
        "node_modules",
        "bower_components",
        "vendor",
        "dist",
        "build",
        "out",
        "output",
        "coverage",
        "target",
        "tmp",
        "temp",
        "logs",
        "public",
        "static",
        "__pycache__",
        "__fixtures__",
        "__tests__",
        "__mocks__",
        "fixtures",
        "testdata",
        "venv",
        "android",
        "ios",
        "Pods",
    )
)

#: How far down a `**` of a workspace pattern is followed, and how many folders a search looks at.
MAX_DEPTH = 6
MAX_FOLDERS = 20_000
#: How many folders are looked at to name an app that lies too deep to be found otherwise: some 50 ms.
MAX_DEEP = 4_000


class Folders:
    """The folders of one project, as far as they were looked at."""

    def __init__(self, project: str) -> None:
        self.project = project
        self._packages: dict[str, manifest.Package | manifest.Broken | None] = {}
        self._python: dict[str, python.Project | None] = {}
        self._children: dict[str, list[str]] = {}
        self._foreign: dict[str, bool] = {}
        self._looked = 0
        #: Whether this is a workspace of Nx, once that was asked.
        self._nx: bool | None = None

    def package(self, folder: str) -> manifest.Package | manifest.Broken | None:
        """Return what the `package.json` in ``folder`` says, read at most once."""
        if folder not in self._packages:
            self._packages[folder] = manifest.read(folder)
            if folder != self.project and self._is_nx():
                self._packages[folder] = self._nx_package(folder) or self._packages[folder]
        return self._packages[folder]

    def _is_nx(self) -> bool:
        if self._nx is None:
            self._nx = os.path.exists(os.path.join(self.project, "nx.json"))
        return self._nx

    def _nx_package(self, folder: str) -> manifest.Package | None:
        from devsup.apps import nx  # only a workspace of Nx needs it

        own, root = self._packages[folder], self.package(self.project)
        if isinstance(own, manifest.Broken) or not isinstance(root, manifest.Package):
            return None
        return nx.application(folder, own, root)

    def python(self, folder: str) -> python.Project | None:
        """Return what the Python project in ``folder`` says, looked for at most once."""
        if folder not in self._python:
            self._python[folder] = python.read(folder)
        return self._python[folder]

    def nearest(self, folder: str) -> manifest.Package | manifest.Broken | None:
        """Return the nearest `package.json` at or above ``folder`` inside the project."""
        for above in upward(folder, self.project):
            if (package := self.package(above)) is not None:
                return package
        return None

    def candidates(self) -> list[str]:
        """
        Return the folders of the project that have a `package.json` or a Python project.

        Its root, its workspaces, then two levels.
        """
        root = self.package(self.project)
        patterns = manifest.pnpm_workspaces(self.project) or []
        if isinstance(root, manifest.Package):
            patterns = [*(root.workspaces or []), *patterns]
        found = {self.project: None} if root is not None or self.python(self.project) is not None else {}
        excluded = {folder for one in patterns if one.startswith("!") for folder in self._expand(one[1:])}
        for pattern in patterns:
            for folder in self._expand(pattern) if not pattern.startswith("!") else ():
                if folder not in excluded:
                    self._add(found, folder)
        for child in self.children(self.project):
            if self.foreign(child):
                continue
            self._add(found, child)
            for grandchild in self.children(child):
                self._add(found, grandchild)
        return list(found)

    def deep(self) -> list[str] | None:
        """
        Return the folders of apps however deep they lie, as far as `MAX_DEPTH`; None where that is too much.

        For one who stands in such a folder and wants to know whether its name is its own.
        """
        found: list[str] = []
        level, looked = [self.project], 0
        for _ in range(MAX_DEPTH):
            below = [child for folder in level for child in self.children(folder) if not self.foreign(child)]
            level = list(dict.fromkeys(below))
            looked += len(level)
            if looked > MAX_DEEP:
                return None
            found += [one for one in level if self.package(one) is not None or self.python(one) is not None]
        return list(dict.fromkeys(found))

    def children(self, folder: str) -> list[str]:
        """Return the real paths of the folders in ``folder`` worth a look, in the order of their names."""
        known = self._children.get(folder)
        if known is None:
            known = self._children[folder] = self._list(folder) if self._looked < MAX_FOLDERS else []
            self._looked += len(known)
        return known

    def foreign(self, folder: str) -> bool:
        """Tell whether ``folder`` is the root of another project, such as a second worktree."""
        known = self._foreign.get(folder)
        if known is None:
            marked = any(os.path.lexists(os.path.join(folder, name)) for name in (".git", "devsup.toml"))
            known = self._foreign[folder] = marked and find_project(folder) != self.project
        return known

    def _add(self, found: dict[str, None], folder: str) -> None:
        if folder in found or (self.package(folder) is None and self.python(folder) is None):
            return
        if not self.foreign(folder):
            found[folder] = None

    def _list(self, folder: str) -> list[str]:
        folders = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == "." or name in SKIPPED:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and (target := self._inside(entry.path)):
                        folders.append(target)
        except OSError:
            return []  # not ours to read: nothing of this project can be started there either
        return sorted(folders)

    def _inside(self, link: str) -> str:
        """Return the folder that a symlink names if it lies within the project, "" for any other."""
        target = os.path.realpath(link)
        if not self._contains(target) or not os.path.isdir(target):
            return ""
        parts = target[len(self.project) :].strip("/").split("/")
        return "" if any(part[0] == "." or part in SKIPPED for part in parts) else target

    def _ours(self, folder: str) -> bool:
        return folder == self.project or not self.foreign(folder)

    def _contains(self, path: str) -> bool:
        return path.startswith(self.project.rstrip("/") + "/")

    def _expand(self, pattern: str) -> list[str]:
        segments = [segment for segment in pattern.split("/") if segment not in ("", ".")]
        if ".." in segments or "node_modules" in segments:
            return []
        folders = [self.project]
        for segment in segments:
            folders = self._step([folder for folder in folders if self._ours(folder)], segment)
        return folders

    def _step(self, folders: list[str], segment: str) -> list[str]:
        if segment == "**":
            found, level = dict.fromkeys(folders), folders
            for _ in range(MAX_DEPTH):
                below = [child for folder in level if self._ours(folder) for child in self.children(folder)]
                # Each folder once: symlinks that lead in circles would multiply them at each level.
                level = list(dict.fromkeys(below))
                found.update(dict.fromkeys(level))
            return list(found)
        if not any(sign in segment for sign in "*?{"):
            paths = [os.path.realpath(os.path.join(folder, segment)) for folder in folders]
            return [path for path in paths if self._contains(path) and os.path.isdir(path)]
        return [
            child
            for folder in folders
            for child in self.children(folder)
            if segment == "*" or _matches(os.path.basename(child), segment)
        ]


def _matches(name: str, pattern: str) -> bool:
    """Tell whether ``name`` matches one segment of a workspace pattern: `*`, `?` and `{one,other}`."""
    import re  # only for the rare pattern that is more than a star

    text = re.escape(pattern)
    for escaped, plain in ((r"\*", ".*"), (r"\?", "."), (r"\{", "(?:"), (r"\}", ")"), (",", "|")):
        text = text.replace(escaped, plain)
    try:
        return re.fullmatch(text, name) is not None
    except re.error:
        return False  # unbalanced braces match nothing for a package manager either

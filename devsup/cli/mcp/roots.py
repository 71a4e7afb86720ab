"""
The folders that a client allows: those that it names, or the one in which this process was started.

Immutable once made; a client that changes its mind gets new ones. Symbolic links are followed first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from devsup.errors import UsageError
from devsup.supervisor import reach

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Roots"]


class Roots:
    """Folders (real paths), the first of which is where a call means that names none."""

    def __init__(self, folders: Iterable[str]) -> None:
        self.folders = tuple(dict.fromkeys(map(os.path.realpath, folders)))

    @classmethod
    def named(cls, uris: Iterable[str], *, otherwise: str) -> Roots:
        """Return the folders that ``uris`` stand for; ``otherwise`` where a client names none at all."""
        uris = list(uris)
        return cls(filter(None, map(_path, uris)) if uris else [otherwise])

    def resolve(self, project: str | None) -> str:
        """
        Return the real path of the folder that a call is about.

        :raises UsageError: it is outside, or no folder
        """
        if not self.folders:
            raise UsageError(
                "the client names roots, but no folder of this machine",
                hint="add the project's folder to the roots of the client",
            )
        if project is None:
            return self.folders[0]
        try:
            path = os.path.realpath(os.path.join(self.folders[0], project))
        except ValueError:  # a NUL, or half a character
            raise UsageError("`project` is no path", hint="name an existing folder as `project`") from None
        reach.check(path, self.folders)
        if not os.path.isdir(path):
            raise UsageError(f"no folder `{path}`", hint="name an existing folder as `project`")
        return path


def _path(uri: str) -> str | None:
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    path = unquote(parts.path)
    return path if path.startswith("/") and "\0" not in path else None

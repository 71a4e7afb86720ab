"""
The apps of an Nx workspace that have no scripts of their own: what a `project.json` says, as a package.

Nx keeps the packages of all apps in the root's `package.json`, and runs each by what its folder contains: a
`next.config.*`, a `vite.config.*`. The tool itself does as well, so nothing here runs Nx. A `vite.config.*`
is in libraries, too, for their tests, so only what calls itself an application counts. Pure functions.
"""

from __future__ import annotations

import os

from devsup import compactjson
from devsup.apps.manifest import Package
from devsup.smallfile import contents

__all__ = ["application"]

#: Files beside `NAME.config.*` that tell what an app is run by.
_MARKS = {"app.json": "expo"}


def application(folder: str, own: Package | None, root: Package) -> Package | None:
    """
    Return the application in ``folder`` with those of the root's packages that its files speak for.

    ``own`` is what its `package.json` says. None where the folder has no application.
    """
    try:
        said = compactjson.loads((contents(os.path.join(folder, "project.json")) or b"").decode())
        names = os.listdir(folder)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("projectType") != "application":
        return None
    marks = {name.partition(".config.")[0] for name in names if ".config." in name}
    marks |= {tool for name, tool in _MARKS.items() if name in names}
    tools = frozenset(marks & root.dependencies)
    if own is not None:
        return own.replace(dependencies=own.dependencies | tools)
    return Package(dir=folder, name=None, scripts={}, dependencies=tools, manager=None, workspaces=None)

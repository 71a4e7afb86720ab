"""Folders as real projects have them, from a short description."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from devsup.apps.commands import Plan, plan

__all__ = ["ENVIRON", "EXPO", "METRO", "NEXT", "Tree", "git", "lay", "package", "plan_of"]

#: A description: path to text, to an object (written as JSON), or to None for an empty folder.
Tree = dict[str, str | dict[str, object] | None]

#: The environment of plans that no test is about.
ENVIRON = {"PATH": "/usr/bin:/bin"}


def package(*dependencies: str, **fields: object) -> dict[str, object]:
    """Return a package.json; keywords that are no field of it are scripts."""
    known = {"name", "workspaces", "packageManager", "scripts", "devDependencies"}
    scripts = {name: text for name, text in fields.items() if name not in known}
    whole: dict[str, object] = {name: value for name, value in fields.items() if name in known}
    if scripts:
        whole["scripts"] = scripts
    if dependencies:
        whole["dependencies"] = dict.fromkeys(dependencies, "1.0.0")
    return whole


NEXT = package("next", "react", dev="next dev", build="next build", start="next start")
EXPO = package("expo", "react-native", start="expo start", android="expo start --android")
METRO = package("react-native", start="react-native start")


def lay(root: Path, tree: Tree) -> Path:
    """Write ``tree`` below ``root`` and return it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
    return root


def git(folder: Path, *words: str) -> None:
    """Run git in ``folder`` with nobody's configuration."""
    who = {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.invalid",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.invalid",
    }
    subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words],
        cwd=folder,
        env={**os.environ, **who},
        check=True,
        capture_output=True,
    )


def plan_of(root: Path, folder: str = ".", *command: str, **options: object) -> Plan:
    """Return the plan for ``command`` in a folder of the project ``root``, or for its app without one."""
    settings: dict[str, object] = {"environ": ENVIRON, **options}
    argv = list(command) or None
    return plan(str(root), str(root / folder), command=argv, **settings)  # type: ignore[arg-type] # a helper

"""
One `package.json`, read once and reduced to what decides how an app is run.

A file that cannot be used is a value here, `Broken`, and not an error: a broken neighbour must not keep an
app from starting. Whoever needs that very file raises `Broken.error()`.
"""

from __future__ import annotations

import os

from devsup import compactjson
from devsup.errors import ConfigInvalid
from devsup.records import Record
from devsup.smallfile import MAX_BYTES, contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MANAGERS", "Broken", "Package", "pnpm_workspaces", "read"]

MANAGERS = ("npm", "pnpm", "yarn", "bun")


class Package(Record):
    """What a usable `package.json` says. ``workspaces`` is None where it does not speak of any."""

    dir: str
    name: str | None
    scripts: dict[str, str]
    dependencies: frozenset[str]
    manager: str | None
    workspaces: list[str] | None


class Broken(Record):
    """A `package.json` that cannot be used, and why. ``text`` is what could be read of it."""

    dir: str
    reason: str
    line: int | None = None
    column: int | None = None
    text: str = ""

    @property
    def path(self) -> str:
        """Return the path of the file."""
        return os.path.join(self.dir, "package.json")

    def error(self) -> ConfigInvalid:
        """Return the error for a caller that needs this file."""
        where = f", line {self.line}" if self.line else ""
        return ConfigInvalid(
            f"`{self.path}`{where}: {self.reason}",
            hint=f"correct `{self.path}`" + (f" at line {self.line}" if self.line else ""),
            details={"file": self.path, "line": self.line, "column": self.column},
        )


def read(folder: str) -> Package | Broken | None:
    """Return what the `package.json` in ``folder`` says; None where there is none."""
    try:
        raw = contents(os.path.join(folder, "package.json"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Broken(folder, f"cannot be read ({error.strerror})")
    if raw is None:
        return None
    text = raw.decode("utf-8-sig", "replace")
    if len(raw) > MAX_BYTES:
        return Broken(folder, f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        data = compactjson.loads(text)
    except (ValueError, RecursionError):
        return _no_json(folder, text)
    if not isinstance(data, dict):
        return Broken(folder, "not a JSON object", 1, 1, text)
    return _package(folder, data)


def _no_json(folder: str, text: str) -> Broken:
    import json  # it tells the place of a mistake

    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return Broken(folder, f"not valid JSON: {_lowered(error.msg)}", error.lineno, error.colno, text)
    except (ValueError, RecursionError):
        pass
    return Broken(folder, "not valid JSON: nested too deeply or a number too long", text=text)


def pnpm_workspaces(folder: str) -> list[str] | None:
    """Return the `packages` of the `pnpm-workspace.yaml` in ``folder``; None where there is no such file."""
    try:
        raw = contents(os.path.join(folder, "pnpm-workspace.yaml"))
    except OSError:
        return None
    if raw is None:
        return None
    found: list[str] = []
    inside = False
    for line in raw.decode("utf-8-sig", "replace").splitlines():
        text = line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        if inside and text.startswith("-"):
            found.append(_unquoted(text[1:]))
        elif not line[0].isspace():
            key, _, value = text.partition(":")
            inside = _unquoted(key) == "packages"
            if inside and value.strip().startswith("["):
                found += [_unquoted(item) for item in value.strip().strip("[]").split(",")]
                inside = False
    return [pattern for pattern in found if pattern]


def _package(folder: str, data: dict[str, Any]) -> Package:
    scripts, workspaces, name = data.get("scripts"), data.get("workspaces"), data.get("name")
    names: set[str] = set()
    for key in ("dependencies", "devDependencies", "optionalDependencies"):
        names.update(name for name, _ in _mapping(data.get(key)))
    if isinstance(workspaces, dict):
        workspaces = workspaces.get("packages", [])
    return Package(
        dir=folder,
        name=name if isinstance(name, str) else None,
        scripts={k: v for k, v in _mapping(scripts) if isinstance(v, str) and v.strip()},
        dependencies=frozenset(names),
        manager=_manager(data.get("packageManager")),
        workspaces=[p for p in workspaces if isinstance(p, str)] if isinstance(workspaces, list) else None,
    )


def _mapping(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, dict) else []


def _manager(field: object) -> str | None:
    name = field.partition("@")[0] if isinstance(field, str) else ""
    return name if name in MANAGERS else None


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]

"""
Which file configures a project, and what it says.

Where there is none this costs a look at three names; where one is and has not changed, one read of the cache.
Files that change while they are read give the configuration of before or after: what is remembered belongs to
the very file that was checked.
"""

from __future__ import annotations

import os
import stat

from devsup.errors import ConfigInvalid
from devsup.records import Record
from devsup.smallfile import contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from devsup.paths import Home

__all__ = ["FILES", "Config", "invalid", "line_of", "load", "merge"]

#: Where a configuration may stand, all at the root of the project; one of them at a time.
FILES = ("devsup.toml", "pyproject.toml", "package.json")
#: What the other two contain where they configure devsup.
_SIGNS = {"pyproject.toml": b"devsup", "package.json": b'"devsup"'}


class Config(Record):
    """
    A checked configuration.

    ``apps`` are the settings of each app by their keys, durations in seconds, ``defaults`` those of all apps
    of the project, ``fleet`` those of its fleet; ``lines`` say where a key stands (`apps.web.port`).
    """

    file: str
    project: str | None
    apps: dict[str, dict[str, Any]]
    defaults: dict[str, Any]
    fleet: dict[str, Any]
    lines: dict[str, int]

    def settings(self, app: str | None) -> dict[str, Any]:
        """Return what is set for ``app``, the defaults included; for what has no name nothing is."""
        if app is None:
            return {}
        own = self.apps.get(app, {})
        merged = merge(self.defaults, own)
        # What the app says of its readiness is no addition where `[defaults]` says the contrary.
        said = own.get("ready", {})
        dropped = (
            ("http", "status") if said.get("tcp") else ("tcp",) if "http" in said or "status" in said else ()
        )
        if dropped:
            merged["ready"] = {
                key: value for key, value in merged["ready"].items() if key in said or key not in dropped
            }
        return merged

    def error(
        self, key: str, why: str, *, allowed: Sequence[str] = (), hint: str | None = None
    ) -> ConfigInvalid:
        """Return the error that ``key`` cannot be as it is."""
        return invalid(self.file, key, self.line(key), why, allowed=allowed, hint=hint)

    def line(self, key: str) -> int | None:
        """Return the line at which ``key``, or the table around it, stands."""
        return line_of(self.lines, key)


def load(project: str, kinds: Sequence[str], home: Home | None = None) -> Config | None:
    """
    Return the configuration of the project at ``project``; None where there is none.

    ``kinds`` are the names that `kind` may have; ``home`` is where checked ones are remembered.

    :raises ConfigInvalid: it cannot be used; says file, line, key and what is allowed
    """
    found: list[tuple[str, bytes | None, list[int]]] = []
    for name in FILES:
        path = f"{project}/{name}"
        if name not in _SIGNS:
            _refuse_odd(path)
        state = _state(path)
        if state is None or not state[1]:
            continue
        raw = None
        if name in _SIGNS:
            try:
                raw = contents(path)
            except OSError:
                continue  # whoever needs it says so
            if raw is None or _SIGNS[name] not in raw:
                continue
        found.append((path, raw, state))
    if not found:
        return None
    from devsup.config import cache  # most projects have nothing to remember

    key = [cache.version(), list(kinds), [[path, *state] for path, _, state in found]]
    known = cache.read(home, project, key)
    if known is not None:
        return None if not known["file"] else _config(known)
    from devsup.config import check

    checked = check.check([(path, raw) for path, raw, _ in found], kinds)
    # Only what was so before and after the check is remembered.
    if [_state(path) for path, _, _ in found] == [state for _, _, state in found]:
        cache.write(home, project, key, checked or _NOTHING, [state for _, _, state in found])
    return None if checked is None else _config(checked)


def line_of(lines: dict[str, int], key: str) -> int | None:
    """Return the line at which ``key``, or the table around it, stands."""
    while key not in lines and "." in key:
        key = key.rpartition(".")[0]
    return lines.get(key)


def invalid(
    file: str,
    key: str | None,
    line: int | None,
    why: str,
    *,
    allowed: Sequence[str] = (),
    hint: str | None = None,
) -> ConfigInvalid:
    """Return the error that a configuration cannot be used."""
    where = f", line {line}" if line else ""
    correct = f"correct line {line} of `{file}`" if line else f"correct `{file}`"
    return ConfigInvalid(
        f"`{file}`{where}: {why}",
        hint=f"{hint}{'' if hint.endswith('?') else ':'} {correct}" if hint else correct,
        details={"file": file, "key": key, "line": line, "allowed": list(allowed)},
    )


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return both, table by table; ``above`` wins."""
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, dict) and isinstance(above.get(key), dict):
            merged[key] = {**value, **above[key]}
    return merged


_NOTHING: dict[str, Any] = {
    "file": "", "project": None, "apps": {}, "defaults": {}, "fleet": {}, "lines": {},
}  # fmt: skip


def _config(checked: dict[str, Any]) -> Config:
    return Config(**{name: checked[name] for name in Config._fields})


def _refuse_odd(path: str) -> None:
    """Raise `ConfigInvalid` for what somebody has put there and what cannot be read as a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        if os.path.islink(path):
            raise invalid(path, None, None, "it is a link to a file that is not there") from None
        return
    if not stat.S_ISREG(mode):
        raise invalid(path, None, None, "it is no regular file")


def _state(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    # The inode's own time cannot be set: it tells a file put back with its dates.
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

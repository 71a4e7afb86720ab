"""
Read and check a configuration, and say of a wrong one what is wrong, where, and what was probably meant.

Loads tomllib and pydantic. A pure function of the files' contents.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from devsup import masking
from devsup.config import lines
from devsup.config.files import invalid, line_of
from devsup.config.model import App, Defaults, File, Fleet, Health, Ready, Stop
from devsup.config.values import Wrong
from devsup.smallfile import MAX_BYTES, contents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devsup.errors import ConfigInvalid

__all__ = ["check"]

#: Where the section of devsup stands in each file.
_SECTIONS = {"devsup.toml": (), "pyproject.toml": ("tool", "devsup"), "package.json": ("devsup",)}
#: How such a section begins in a file that cannot be read to its end.
_SECTION = {
    "pyproject.toml": re.compile(r"^\s*\[\s*tool\s*\.\s*devsup\b", re.MULTILINE),
    "package.json": re.compile(r'"devsup"\s*:\s*\{'),
}
#: The tables by the keys under which they stand.
_TABLES = {"defaults": Defaults, "fleet": Fleet, "ready": Ready, "stop": Stop, "health": Health}


def check(files: Sequence[tuple[str, bytes | None]], kinds: Sequence[str]) -> dict[str, Any] | None:
    """
    Return what the one of ``files`` that configures devsup says, checked; None where none of them does.

    :raises ConfigInvalid: it is wrong, or there are two
    """
    found = [
        read for path, raw in files if (read := _read(path, _raw(path) if raw is None else raw)) is not None
    ]
    if not found:
        return None
    if len(found) > 1:
        first, second = found[0][0], found[1][0]
        key = ".".join(_SECTIONS[os.path.basename(second)])
        raise invalid(
            second,
            key,
            found[1][2].get(key),
            f"devsup is configured by `{os.path.basename(first)}` beside it, too: one file has to say it all",
            allowed=[os.path.basename(first)],
            hint="keep one of the two",
        )
    path, section, where = found[0]
    prefix = ".".join(_SECTIONS[os.path.basename(path)])
    places = {
        key.removeprefix(prefix).removeprefix("."): line
        for key, line in where.items()
        if key == prefix or key.startswith(f"{prefix}." if prefix else "")
    }
    return _checked(path, section, places, kinds)


def _raw(path: str) -> bytes | None:
    try:
        return contents(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise invalid(path, None, None, f"it cannot be read: {str(error.strerror).lower()}") from None


def _read(path: str, raw: bytes | None) -> tuple[str, Any, dict[str, int]] | None:
    """Return path, section and the lines of the keys of one file; None where it has no section."""
    name = os.path.basename(path)
    if raw is None or (len(raw) > MAX_BYTES and name != "devsup.toml"):
        return None
    if len(raw) > MAX_BYTES:
        raise invalid(path, None, None, f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if name != "devsup.toml":
            return None  # its own tools say so
        raise invalid(path, None, raw.count(b"\n", 0, error.start) + 1, "not valid UTF-8") from None
    try:
        data = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
    except json.JSONDecodeError as error:
        if _SECTION[name].search(text) is None:
            return None  # who needs the package says so
        raise invalid(path, None, error.lineno, f"not valid JSON: {error.msg.lower()}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if name != "devsup.toml" and (not name.endswith(".toml") or _SECTION[name].search(text) is None):
            return None  # its own tools say so
        raise _syntax(path, str(error), text) from None
    except ValueError:
        return None
    for part in _SECTIONS[name]:
        data = data.get(part) if isinstance(data, dict) else None
    if data is None or (name == "devsup.toml" and not data):
        return None
    return path, data, lines.in_json(text) if name.endswith(".json") else lines.in_toml(text)


def _syntax(path: str, message: str, text: str) -> ConfigInvalid:
    at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    said = message[: at.start()] if at else message
    line = int(at.group(1)) if at and at.group(1) else text.rstrip().count("\n") + 1
    return invalid(path, None, line, f"not valid TOML: {said[:1].lower()}{said[1:]}")


def _checked(path: str, section: Any, where: dict[str, int], kinds: Sequence[str]) -> dict[str, Any]:
    try:
        file = File.model_validate(section, context={"kinds": kinds})
    except ValidationError as error:
        raise _wrong(path, error, section, where, kinds) from None
    apps = {name: app.model_dump(exclude_none=True) for name, app in file.apps.items()}
    defaults = file.defaults.model_dump(exclude_none=True) if file.defaults else {}
    _refuse_contradictions(
        path, where, {"defaults": defaults, **{f"apps.{n}": one for n, one in apps.items()}}
    )
    _refuse_cycles(path, where, apps)
    return {
        "file": path,
        "project": file.project,
        "apps": apps,
        "defaults": defaults,
        "fleet": file.fleet.model_dump(exclude_none=True) if file.fleet else {},
        "lines": where,
    }


# -- what is wrong with one value --------------------------------------------------------------------------


def _wrong(
    path: str, error: ValidationError, section: Any, where: dict[str, int], kinds: Sequence[str]
) -> ConfigInvalid:
    problems = []
    for one in error.errors():
        parts = [str(part) for part in one["loc"]]
        problems.append(_problem(parts, one, section, where, kinds))
    problems.sort(key=lambda problem: problem[1] or 0)
    key, line, why, allowed, meant = problems[0]
    if len(problems) > 1:
        others = ", ".join(f"line {one[1]}" if one[1] else f"`{one[0]}`" for one in problems[1:4])
        why += f"; also wrong: {others}"
    hint = f"did you mean `{meant}`?" if meant else None
    return invalid(path, key, line, why, allowed=allowed, hint=hint)


_Problem = tuple[str, int | None, str, list[str], str | None]


def _problem(
    parts: list[str], error: Any, section: Any, where: dict[str, int], kinds: Sequence[str]
) -> _Problem:
    cause = (error.get("ctx") or {}).get("error")
    if parts == ["apps"] and isinstance(cause, Wrong):  # the name of one of them
        name = next((one for one in section["apps"] if f"`{one}`" in str(cause.why)), "")
        key = f"apps.{name}"
        return key, where.get(key), f"{cause.why}: {', '.join(cause.allowed)}", cause.allowed, _slug(name)
    key = ".".join(parts)
    line = line_of(where, key)
    if error["type"] == "extra_forbidden":
        known = sorted(_table(parts[:-1]).model_fields)
        table = ".".join(parts[:-1])
        inside = f" in `[{table}]`" if table else ""
        meant = _like(parts[-1], known)
        if not table and meant is None and isinstance(error["input"], dict):
            meant = f"[apps.{parts[-1]}]"  # the table of an app without the word in front
        return key, line, f"unknown key `{parts[-1]}`{inside}: allowed are {_listed(known)}", known, meant
    if isinstance(cause, Wrong):
        # A variable's value may be a secret.
        shown = "what it says" if "env" in parts else _shown(error["input"])
        why = cause.why or f"{shown} cannot be: allowed are {', '.join(map(_quoted, cause.allowed))}"
        meant = cause.meant or _like(error["input"], cause.allowed)
        if meant is None and parts[-1] == "kind":
            meant = _KINDS.get(str(error["input"]).lower())
            meant = meant if meant in kinds else None
        return key, line, f"`{key}`: {why}", cause.allowed, meant
    said = "what it says" if "env" in parts else _shown(error["input"])
    example = f"[{key}]" if parts else None
    return key, line, f"`{key or 'devsup'}`: {said} is no table", ["a table"], example


#: What people call a kind, and what it is called here.
_KINDS = {
    "nextjs": "next",
    "next.js": "next",
    "react-native": "expo",
    "remix": "react-router",
    "svelte": "sveltekit",
    "ng": "angular",
    "go": "command",
    "node": "command",
    "rails": "command",
    "process": "command",
}


def _table(parts: list[str]) -> Any:
    if not parts:
        return File
    if parts[-1] in _TABLES and parts[:-1] != ["apps"]:
        return _TABLES[parts[-1]]
    return App


def _like(word: Any, known: Sequence[str]) -> str | None:
    if not isinstance(word, str):
        return None
    same = {one.strip('"').lower().replace("_", "").replace("-", ""): one for one in known}
    plain = word.lower().replace("_", "").replace("-", "")
    near = difflib.get_close_matches(plain, list(same), n=1, cutoff=0.6) or [
        one for one in same if len(plain) > 1 and (one.endswith(plain) or one.startswith(plain))
    ]
    return same[near[0]].strip('"') if near else None


def _slug(name: str) -> str | None:
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())
    plain = plain.strip("-")
    return plain if plain and not plain.isdecimal() else None


def _shown(value: Any) -> str:
    return f"`{masking.cut(json.dumps(value, ensure_ascii=False, default=str), 60)}`"


def _quoted(text: str) -> str:
    return text if " " in text or '"' in text else f"`{text}`"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# -- what is wrong between values --------------------------------------------------------------------------


def _refuse_contradictions(path: str, where: dict[str, int], tables: dict[str, dict[str, Any]]) -> None:
    for name, settings in tables.items():
        ready = settings.get("ready", {})
        if ready.get("tcp") and ("http" in ready or "status" in ready):
            other = "http" if "http" in ready else "status"
            raise invalid(
                path,
                f"{name}.ready.tcp",
                line_of(where, f"{name}.ready.tcp"),
                f"`{name}.ready`: `tcp = true` asks for no HTTP answer, and `{other}` for one",
                allowed=["tcp", "http"],
                hint="keep one of the two",
            )


def _refuse_cycles(path: str, where: dict[str, int], apps: dict[str, dict[str, Any]]) -> None:
    done: set[str] = set()
    for first in apps:
        cycle = _cycle(apps, first, done)
        if cycle:
            key = f"apps.{cycle[-2]}.depends_on"
            raise invalid(
                path,
                key,
                line_of(where, key),
                f"`{key}`: {' -> '.join(cycle)} is a circle: none of them could be first",
                allowed=sorted(apps.keys() - set(cycle)),
                hint=f"take `{cycle[-1]}` out",
            )


def _cycle(apps: dict[str, dict[str, Any]], first: str, done: set[str]) -> list[str]:
    """Return a circle that can be reached from ``first``, if there is one: a chain may be long."""

    def needs(name: str) -> Iterator[str]:
        return iter(apps.get(name, {}).get("depends_on", ()))

    chain, ways = [first], [needs(first)]
    while chain:
        other = next(ways[-1], None)
        if other is None:
            done.add(chain.pop())
            ways.pop()
        elif other in chain:
            return [*chain[chain.index(other) :], other]
        elif other not in done:
            chain.append(other)
            ways.append(needs(other))
    return []

"""
Write what is derived: the hot lane's grammar, the shells' completions, the schema of devsup.toml.

Run as `python -m devsup.cli.generate` after a change of a command; with `--check` it only tells what is not
current. For developers, one at a time.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from typing import TYPE_CHECKING, Any, get_type_hints

import typer.main
from typer._completion_shared import get_completion_script

from devsup.apps.presets import KINDS
from devsup.cli.app import app
from devsup.config.model import json_schema

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["completions", "files", "grammar", "main"]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_HEAD = '''"""
The verbs and flags that the hot lane understands.

Generated from `devsup/cli/commands` by `python -m devsup.cli.generate`; a test checks it. Constants.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ALIASES", "GLOBALS", "VERBS"]
'''

_COMMENTS = {
    "ALIASES": "Other names of verbs.",
    "GLOBALS": "Options that are allowed before the verb: their target, kind, and value if a flag.",
    "VERBS": "Per verb: options, arguments (name, required, many), what takes the rest after `--`, defaults.",
}

_TYPES = {"ALIASES": "dict[str, str]", "GLOBALS": "dict[str, Any]", "VERBS": "dict[str, Any]"}

_KINDS: dict[Any, str] = {bool: "flag", str: "text", int: "int", float: "float", list[str]: "texts"}


def grammar() -> str:
    """Return the text of `devsup/cli/grammar.py`."""
    group: Any = typer.main.get_command(app)
    by_callback: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    verbs: dict[str, Any] = {}
    for info in app.registered_commands:
        assert info.callback is not None
        name = info.name or info.callback.__name__
        if info.callback in by_callback:
            aliases[name] = by_callback[info.callback]
            continue
        by_callback[info.callback] = name
        verbs[name] = _verb(group.commands[name], info.callback)
    callback = app.registered_callback.callback if app.registered_callback else None
    assert callback is not None
    tables = {"ALIASES": aliases, "GLOBALS": _options(group, _kinds(callback)), "VERBS": verbs}
    parts = [
        f"#: {_COMMENTS[name]}\n{name}: {_TYPES[name]} = {_literal(table)}\n"
        for name, table in tables.items()
    ]
    return _HEAD + "\n" + "\n".join(parts)


def _literal(value: Any, indent: str = "", *, flat: bool = False) -> str:
    """Return ``value`` as source the way the formatter leaves it: tables open, what is inside them flat."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict | tuple) and not value:
        return repr(value)
    inner = f"{indent}    "
    nested = isinstance(value, dict) or (isinstance(value, tuple) and any(isinstance(v, dict) for v in value))
    if flat or not nested:
        if not isinstance(value, tuple):
            return repr(value)
        return f"({', '.join(_literal(v, flat=True) for v in value)}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        lines = [f"{json.dumps(name)}: {_literal(v, inner)}" for name, v in value.items()]
        return "\n".join(["{", *(f"{inner}{line}," for line in lines), f"{indent}}}"])
    return "\n".join(["(", *(f"{inner}{_literal(v, inner)}," for v in value), f"{indent})"])


def _verb(command: Any, callback: Callable[..., Any]) -> tuple[Any, ...]:
    kinds = _kinds(callback)
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    rest = next((param.name for param in arguments if (param.metavar or "").startswith("--")), None)
    listed = tuple(
        (param.name, param.required, kinds[param.name] == "texts")
        for param in arguments
        if param.name != rest
    )
    defaults = {param.name: param.default for param in command.params if param.name in kinds}
    return _options(command, kinds), listed, rest, defaults


def _options(command: Any, kinds: dict[str, str]) -> dict[str, tuple[Any, ...]]:
    options: dict[str, tuple[Any, ...]] = {}
    for param in command.params:
        if param.param_type_name != "option" or param.name not in kinds:
            continue
        kind = kinds[param.name]
        options |= dict.fromkeys(param.opts, (param.name, kind, True))
        options |= dict.fromkeys(param.secondary_opts, (param.name, kind, False))
    return options


def _kinds(callback: Callable[..., Any]) -> dict[str, str]:
    hints = get_type_hints(callback)
    kinds = {}
    for name in inspect.signature(callback).parameters:
        # `str | None` is a text that may be absent.
        plain = next((kind for hint, kind in _KINDS.items() if hints[name] in (hint, hint | None)), None)
        if plain is not None:
            kinds[name] = plain
    return kinds


def completions() -> dict[str, str]:
    """Return the completion script of each shell."""
    return {
        shell: get_completion_script(prog_name="devsup", complete_var="_DEVSUP_COMPLETE", shell=shell) + "\n"
        for shell in ("bash", "zsh", "fish")
    }


def files() -> dict[str, str]:
    """Return every generated file of the repository, by its path in it."""
    scripts = {f"completions/devsup.{shell}": script for shell, script in completions().items()}
    schema = json.dumps(json_schema(tuple(KINDS)), indent=2, ensure_ascii=False) + "\n"
    return {"devsup/cli/grammar.py": grammar(), "devsup/config/devsup.schema.json": schema, **scripts}


def main() -> int:
    """Write the files, or with `--check` name those that are not current."""
    stale = 0
    for path, text in files().items():
        full = os.path.join(ROOT, path)
        try:
            with open(full, encoding="utf-8") as file:
                current = file.read() == text
        except FileNotFoundError:
            current = False
        if current:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"{path} is not current: python -m devsup.cli.generate")
            continue
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        print(f"wrote {path}")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

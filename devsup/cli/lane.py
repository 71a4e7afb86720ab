"""
The hot lane: what machines call runs without typer, rich and pydantic.

`parse` understands plain calls by the generated grammar, whose one source is the Typer app. What it does not
fully understand, every mistake and every `--help` is None here and goes to Typer. Pure functions.
"""

from __future__ import annotations

from devsup.cli.grammar import ALIASES, GLOBALS, VERBS
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

__all__ = ["ALLOWED", "ALLOWED_FOR_TEXT", "Call", "arrange", "cut", "parse"]

#: Modules, beside devsup's own and private ones, that a call may load here: what the standard library needs
#: for JSON, SQLite, locks and regular expressions. Each further one is paid by every call; a test compares.
ALLOWED = frozenset(
    (
        *("binascii", "collections", "copyreg", "enum", "errno", "fcntl", "functools", "gc", "itertools"),
        *("json", "keyword", "math", "operator", "re", "reprlib", "select", "signal", "types", "zlib"),
    )
)
#: Only where a text is shown: times since a start, and commands as a shell would read them.
ALLOWED_FOR_TEXT = ALLOWED | {"datetime", "shlex"}


class Call(Record):
    """One command with all its options, however it was parsed."""

    verb: str
    options: dict[str, Any]


def cut(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Split at the first `--`: what follows is somebody's command and never an option of ours."""
    words = list(argv)
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


def arrange(words: list[str]) -> list[str]:
    """Move the options that are allowed before the verb behind it; unknown ones stay for Typer to refuse."""
    leading = 0
    while leading < len(words) and words[leading][:1] == "-":
        name, equals, _ = words[leading].partition("=")
        if name[:2] != "--":
            name, equals = words[leading][:2], words[leading][2:]
        if name not in GLOBALS:
            return words
        leading += 1 if equals or GLOBALS[name][1] == "flag" else 2
    if words[:leading] and "--version" in words[:leading]:
        return ["version", *(word for word in words[:leading] if word != "--version"), *words[leading:]]
    return [*words[leading : leading + 1], *words[:leading], *words[leading + 1 :]]


def parse(argv: Sequence[str]) -> Call | None:
    """Return the call that ``argv`` plainly is, or None where Typer should look at it."""
    words, rest = cut(argv)
    words = arrange(words)
    verb = ALIASES.get(words[0], words[0]) if words else ""
    if verb not in VERBS:
        return None
    known, arguments, command, defaults = VERBS[verb]
    options, values = dict(defaults), []
    remaining = iter(words[1:])
    for word in remaining:
        if word[:1] != "-" or word == "-":
            values.append(word)
        elif not _option(word, remaining, known, options):
            return None
    if rest is not None:
        if command is None:
            values += rest
        elif not rest:
            return None
        else:
            options[command] = rest
    for name, required, many in arguments:
        if many:
            options[name], values = values or defaults[name], []
        elif values:
            options[name] = values.pop(0)
        if required and options[name] is None:
            return None
    return None if values else Call(verb, options)


def _option(word: str, remaining: Iterator[str], known: dict[str, Any], options: dict[str, Any]) -> bool:
    """Read one option, with its value; False where anything about it is not plain."""
    name, given, value = word.partition("=")
    if word[:2] != "--":
        name, given, value = word[:2], word[2:], word[2:]
    if name not in known:
        return False
    target, kind, setting = known[name]
    if kind == "flag":
        options[target] = setting
        return not given
    if not given:
        value = next(remaining, "")
    if not value:
        return False
    if kind == "text":
        options[target] = value
    elif kind == "texts":
        options[target] = [*(options[target] or ()), value]
    else:
        digits = value.replace(".", "", kind == "float")
        if not (digits.isdigit() and digits.isascii() and len(digits) < 16):
            return False
        options[target] = int(value) if kind == "int" else float(value)
    return True

r"""
The lines of an `env_file`: `NAME=value`, as dotenv files are written.

`export` in front, quotes around a value, comments; within double quotes `\n`, `\t`, `\"` and `\\`, and both
kinds of quotes may go over several lines. `$NAME` stays as it is: what a file says does not depend on who
reads it. No library: the one there is (python-dotenv) loads what the hot lane must not. Pure functions.
"""

from __future__ import annotations

__all__ = ["Unreadable", "parse"]

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_LETTERS = _FIRST | frozenset("0123456789.-")


class Unreadable(ValueError):
    """A line that is no assignment; ``line`` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


def parse(text: str) -> dict[str, str]:
    """
    Return the variables of a file; the last of several wins.

    :raises Unreadable: a line is no assignment, or a quote is not closed
    """
    found: dict[str, str] = {}
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    index = 0
    while index < len(lines):
        began, line = index + 1, lines[index].strip()
        index += 1
        if not line or line.startswith("#"):
            continue
        if line.startswith(("export ", "export\t")):
            line = line[len("export") :].lstrip()
        name, equals, value = line.partition("=")
        name, value = name.rstrip(), value.lstrip()
        if not equals or not name or name[0] not in _FIRST or not _LETTERS.issuperset(name):
            # Not the line itself: it may be a secret whose name was forgotten.
            raise Unreadable(began, "it is not of the form NAME=value")
        if value[:1] in ("'", '"'):
            while (end := _end(value)) < 0 and index < len(lines):
                value += f"\n{lines[index]}"
                index += 1
            if end < 0:
                raise Unreadable(began, f"the quote of `{name}` is not closed")
            after = value[end + 1 :].strip()
            if after and not after.startswith("#"):
                raise Unreadable(began, f"something stands behind the quoted value of `{name}`")
            found[name] = _unescaped(value[1:end]) if value[0] == '"' else value[1:end]
        else:
            found[name] = _without_comment(value)
    return found


def _end(value: str) -> int:
    """Return where the quote that ``value`` begins with is closed, -1 where it is not."""
    quote, at = value[0], 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 1
        elif value[at] == quote:
            return at
        at += 1
    return -1


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    parts, at = [], 0
    while at < len(value):
        following = value[at + 1 : at + 2]
        if value[at] == "\\" and following in _ESCAPES:
            parts.append(_ESCAPES[following])
            at += 2
        else:
            parts.append(value[at])
            at += 1
    return "".join(parts)


def _without_comment(value: str) -> str:
    if value.startswith("#"):
        return ""
    for blank in (" #", "\t#"):
        value = value.partition(blank)[0]
    return value.rstrip()

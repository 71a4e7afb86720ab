"""
How Next.js prints errors: a cross and the place of what does not compile, or the error itself, then frames.

Seen of Next.js 16.4 (Turbopack) and 15.5 (webpack, SWC); each prints one error up to six times.
"""

from __future__ import annotations

import re

from devsup.logs.errors.fault import COMPILE, METHODS, REQUEST, RUNTIME, Fault, own_frame, path_of, tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["begins", "goes_on", "read"]

_CROSS = re.compile(r"^\s*⨯ (?P<rest>.*)")
#: `./app/page.jsx:6:1`, after a cross; Turbopack leaves that out now and then.
_PLACE = re.compile(r"^(?P<file>\.{1,2}/[^\s:]+)(?::(?P<line>\d+):(?P<column>\d+))?$")
_BARE_PLACE = re.compile(r"^\./[^\s:]+:\d+:\d+$")
_SPOT = re.compile(r"^\s*(?:,-|╭─)\[(?P<file>[^\]]+?):(?P<line>\d+):(?P<column>\d+)\]")
_REQUEST = re.compile(rf"^\s*(?P<what>(?:{METHODS}) \S+ 5\d\d) in [\d.]+m?s\b")
_NEXT_THING = re.compile(rf"^\s*(?:[✓○⚠▲⨯] |(?:{METHODS}) \S+ \d{{3}} in )")
_UNCAUGHT = re.compile(r"^(?:unhandledRejection|uncaughtException):\s*")
#: What Turbopack says of a file where the reason follows behind the code.
_PARSING = re.compile(r"^Parsing .* source code failed$")
_SAYING = re.compile(r"^[A-Z][^:]*$")
_CONFIG = re.compile(r"^Failed to load (?P<file>next\.config\.\w+)")


def begins(line: str) -> bool:
    """Tell whether an error begins here."""
    return bool(_CROSS.match(line) or _BARE_PLACE.match(line) or _REQUEST.match(line))


def goes_on(line: str, lines: Sequence[str]) -> bool:
    """Tell whether ``line`` belongs to the error that has these ``lines`` so far."""
    if _REQUEST.match(lines[0]) or _NEXT_THING.match(line):
        return False
    if _PLACE.match(_rest(lines[0])):
        # Turbopack ends each with two empty lines, but may begin with as many behind the code.
        return not _BARE_PLACE.match(line) or _is_generated(lines)
    return line[:1] in (" ", "\t", ">", "") or line.startswith("}") or not lines[1:]


def read(lines: Sequence[str]) -> Fault | None:
    """Return what they say; None where that is no error after all."""
    found = _REQUEST.match(lines[0])
    if found:
        return Fault(REQUEST, tidy(found["what"]))
    rest = _rest(lines[0])
    place = _PLACE.match(rest)
    if place:
        return _compile(place["file"], place["line"], place["column"], lines[1:])
    config = _CONFIG.match(rest)
    if config:
        why = next((line.strip() for line in lines[1:] if line.strip()), "")
        return Fault(COMPILE, tidy(f"{config[0]}: {why}" if why else config[0]), config["file"])
    message = _UNCAUGHT.sub("", rest).removeprefix("[").rstrip("{ ").removesuffix("]")
    return Fault(RUNTIME, tidy(message), *own_frame(lines[1:])) if message else None


def _compile(file: str, line: str | None, column: str | None, lines: Sequence[str]) -> Fault | None:
    message = next((text for text in lines if text.strip()), "").strip()
    if not message:
        return None
    message = re.sub(r"^(?:Error:|Syntax error:)\s*(?:x\s+)?", "", message)
    if _PARSING.match(message):
        message = next((text for text in lines[1:] if _SAYING.match(text)), message).strip()
    name = path_of(file)
    if line is None:
        spot = next((spot for text in lines if (spot := _SPOT.match(text))), None)
        if spot is not None:
            line, column = spot["line"], spot["column"]
    message = re.sub(rf"^(?:/\S*)?{re.escape(name)}:?\s+", "", message)  # PostCSS says the place once more
    return Fault(COMPILE, tidy(message), name, int(line) if line else None, int(column) if column else None)


def _rest(line: str) -> str:
    found = _CROSS.match(line)
    return found["rest"].strip() if found else line.strip()


def _is_generated(lines: Sequence[str]) -> bool:
    return any(line.startswith("Generated code of ") for line in lines[-2:])

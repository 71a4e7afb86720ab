"""
How Node.js prints an error: its name and message, then frames; for a file that cannot be read, its place
first. Also the one-line complaints of TypeScript's compiler.

Seen of Node.js 20 (Next.js 15.5 prints what an API route throws so). TypeScript's form is the documented one.
"""

from __future__ import annotations

import re

from devsup.logs.errors.fault import COMPILE, RUNTIME, Fault, frame_of, own_frame, path_of, tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["begins", "goes_on", "read"]

_ERROR = re.compile(
    r"^(?:Uncaught )?(?P<name>[A-Z]\w*(?:Error|Exception)|Error)(?: \[[\w. ]+\])?: (?P<message>.*)"
)
_PLACE = re.compile(r"^(?P<file>(?:file://)?/[^\s:]+\.[cm]?[jt]sx?):(?P<line>\d+)$")
_TYPESCRIPT = re.compile(
    r"^(?P<file>[^\s(:]+\.[cm]?tsx?)(?:\((?P<line>\d+),(?P<column>\d+)\):|:(?P<line2>\d+):(?P<column2>\d+) -)"
    r" error (?P<message>TS\d+: .*)"
)


def begins(line: str) -> bool:
    """Tell whether an error begins here."""
    return bool(_ERROR.match(line) or _PLACE.match(line) or _TYPESCRIPT.match(line))


def goes_on(line: str, lines: Sequence[str]) -> bool:
    """Tell whether ``line`` belongs to the error that has these ``lines`` so far."""
    if _TYPESCRIPT.match(lines[0]):
        return False
    if _PLACE.match(lines[0]) and not any(map(_ERROR.match, lines)):
        return len(lines) < 12
    return len(lines) == 1 or line[:1] in (" ", "\t", ">", "") or line.startswith(("}", "Node.js v"))


def read(lines: Sequence[str]) -> Fault | None:
    """Return what they say; None where that is no error after all."""
    found = _TYPESCRIPT.match(lines[0])
    if found:
        line, column = found["line"] or found["line2"], found["column"] or found["column2"]
        return Fault(COMPILE, tidy(found["message"]), path_of(found["file"]), int(line), int(column))
    at = next((number for number, line in enumerate(lines) if _ERROR.match(line)), None)
    # A word that ends in "Error" and a colon may stand anywhere; an error has its frames.
    if at is None or not any(frame_of(line) or "    at " in line for line in lines[at:]):
        return None
    message = tidy(lines[at].removeprefix("Uncaught "))
    place = _PLACE.match(lines[0])
    if place:
        return Fault(
            COMPILE if "SyntaxError" in message else RUNTIME,
            message,
            path_of(place["file"]),
            int(place["line"]),
        )
    return Fault(RUNTIME, message, *own_frame(lines[at + 1 :]))

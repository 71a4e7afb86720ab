"""
How Vite prints errors: `[vite]` and what it was about, then the plugin, the file, a code frame.

Seen of Vite 8 (Rolldown, Oxc); the form of esbuild (Vite 4 to 7) is the documented one.
"""

from __future__ import annotations

import re

from devsup.logs.errors.fault import COMPILE, RUNTIME, Fault, own_frame, path_of, tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["begins", "goes_on", "read"]

_BEGIN = re.compile(
    r"^(?:[\d:]+(?:\s?[AP]M)?\s+)?\[vite\]\s+(?:\(\w+\)\s+)?"
    r"(?P<what>Internal server error|Pre-transform error|Build failed[^:]*|Error when evaluating .+?)"
    r":\s*(?P<message>.*)"
)
_DETAIL = re.compile(r"^\[\w+\] (?P<message>.*)")
_ESBUILD = re.compile(r"^(?P<file>\S+?):(?P<line>\d+):(?P<column>\d+): ERROR: (?P<message>.*)")
_SPOT = re.compile(r"^\s*[╭,][─-]\[\s*(?P<file>\S+?):(?P<line>\d+):(?P<column>\d+)\s*\]")
_FILE = re.compile(r"^\s+File: (?P<file>[^\s:]+)(?::(?P<line>\d+):(?P<column>\d+))?")
_NEXT_THING = re.compile(r"^(?:[\d:]+(?:\s?[AP]M)?\s+)?\[vite\]")


def begins(line: str) -> bool:
    """Tell whether an error begins here."""
    return bool(_BEGIN.match(line))


def goes_on(line: str, lines: Sequence[str]) -> bool:
    """Tell whether ``line`` belongs to the error that has these ``lines`` so far."""
    if _NEXT_THING.match(line) or not lines:
        return False
    return line[:1] in (" ", "\t", "", "─", "│", "╭", "╰") or bool(
        _DETAIL.match(line) or _ESBUILD.match(line)
    )


def read(lines: Sequence[str]) -> Fault | None:
    """Return what they say; None where that is no error after all."""
    found = _BEGIN.match(lines[0])
    if found is None:
        return None
    kind = RUNTIME if found["what"].startswith("Error when") else COMPILE
    message, place = found["message"], (None, None, None)
    said: tuple[str | None, int | None, int | None] = place
    for line in lines[1:]:
        detail = _DETAIL.match(line) or _ESBUILD.match(line)
        if detail and (not message or "failed with" in message):
            message = detail["message"]
        spot = _ESBUILD.match(line) or _SPOT.match(line) or _FILE.match(line)
        if spot and said[1] is None and (said[0] is None or spot["line"]):
            # Both count columns as they like; Vite's own from 0.
            at = (int(spot["line"]), int(spot["column"])) if spot["line"] else (None, None)
            said = (path_of(spot["file"]), *at)
    if said[0] is None:
        said = own_frame(lines[1:])
    return Fault(kind, tidy(message), *said) if message else None

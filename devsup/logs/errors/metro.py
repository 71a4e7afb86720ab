"""
How Expo and Metro print errors: a bundle that failed and why, or what the app on the device reports.

Seen of Expo SDK 57 (Metro); what a device reports (` ERROR  TypeError: ...`) is the documented form.
"""

from __future__ import annotations

import re

from devsup.logs.errors.fault import BUNDLE, RUNTIME, Fault, marked, own_frame, path_of, tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["begins", "goes_on", "read"]

_FAILED = re.compile(r"^(?:λ )?(?:iOS|Android|Web|Server|\w+) (?:\./\S+ )?Bundling failed ")
_ERROR = re.compile(r"^\s*ERROR\s{1,2}(?P<message>\S.*)")
_TRANSFORMER = re.compile(r"^Failed to construct transformer:\s+(?P<message>.*)")
_SYNTAX = re.compile(
    r"^(?P<name>\w*Error): (?P<file>/[^:]+): (?P<message>.*?)(?: \((?P<line>\d+):(?P<column>\d+)\))?$"
)
_UNRESOLVED = re.compile(r"^(?P<message>Unable to resolve (?:module )?\S+ from \"?(?P<file>[^\"\s:]+)\"?.*)")
_MORE = re.compile(r"^(?:\s|>|$|Import stack:|\w+[/.\w-]*$)")


def begins(line: str) -> bool:
    """Tell whether an error begins here."""
    return bool(_FAILED.match(line) or _ERROR.match(line) or _TRANSFORMER.match(line))


def goes_on(line: str, lines: Sequence[str]) -> bool:
    """Tell whether ``line`` belongs to the error that has these ``lines`` so far."""
    if len(lines) == 1 and _FAILED.match(lines[0]):
        return not _FAILED.match(line)
    return bool(_MORE.match(line)) and not _ERROR.match(line)


def read(lines: Sequence[str]) -> Fault | None:
    """Return what they say; None where that is no error after all."""
    broken = _TRANSFORMER.match(lines[0])
    if broken:
        return Fault(BUNDLE, tidy(broken["message"]), *own_frame(lines[1:]))
    failed = bool(_FAILED.match(lines[0]))
    if failed and len(lines) == 1:
        return Fault(BUNDLE, tidy(lines[0]))
    first = lines[1] if failed else lines[0]
    found = _ERROR.match(first)
    text = (found["message"] if found else first).strip()
    rest = lines[2 if failed else 1 :]
    kind = BUNDLE if failed else RUNTIME
    syntax = _SYNTAX.match(text)
    if syntax:
        line, column = syntax["line"], syntax["column"]
        # Babel counts columns from 0.
        at = (int(line), int(column) + 1) if line else marked(rest)
        return Fault(BUNDLE, tidy(f"{syntax['name']}: {syntax['message']}"), path_of(syntax["file"]), *at)
    unresolved = _UNRESOLVED.match(text)
    if unresolved:
        return Fault(BUNDLE, tidy(unresolved["message"]), path_of(unresolved["file"]), *marked(rest))
    return Fault(kind, tidy(text), *own_frame(rest)) if text else None

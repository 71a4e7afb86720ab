"""One error as a tool has printed it, and what is common to reading paths and frames. Pure functions."""

from __future__ import annotations

import re

from devsup import masking
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "BUNDLE",
    "COMPILE",
    "METHODS",
    "REQUEST",
    "RUNTIME",
    "Fault",
    "frame_of",
    "marked",
    "own_frame",
    "path_of",
    "tidy",
]

COMPILE, RUNTIME, REQUEST, BUNDLE = "compile", "runtime", "request", "bundle"
METHODS = "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"

#: Longest message; what is longer ends in an ellipsis.
LONGEST = 400

_FRAME = re.compile(
    r"^\s+at (?:(?:async |new )*[^()]*? ?\()?(?P<file>[^()\s][^()]*?):(?P<line>\d+):(?P<column>\d+)\)?\s*$"
)
_FOREIGN = re.compile(r"node_modules|^node:|^<|internal/|^native$")
_WEBPACK = re.compile(r"^(?:webpack-internal:///|webpack://[^/]*/|file://)(?:\([\w-]+\)/)?")


class Fault(Record):
    """What was printed: ``kind`` (one of the four), message, and where, as far as that was said."""

    kind: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None


def tidy(message: str) -> str:
    """Return a message on one line, not longer than one can bear; one that has to be cut is masked before."""
    return masking.cut(" ".join(message.split()), LONGEST)


def path_of(text: str) -> str:
    """Return a file's name without what a bundler has put around it."""
    name = _WEBPACK.sub("", text.strip())
    return name.removeprefix("./").partition("?")[0]


def frame_of(line: str) -> tuple[str, int, int] | None:
    """Return file, line and column of a JavaScript stack frame; None of any other line."""
    found = _FRAME.match(line)
    return (path_of(found["file"]), int(found["line"]), int(found["column"])) if found else None


def own_frame(lines: Iterable[str]) -> tuple[str, int, int] | tuple[None, None, None]:
    """Return the first frame of a JavaScript stack that is in nobody's package."""
    for line in lines:
        frame = frame_of(line)
        if frame is not None and not _FOREIGN.search(frame[0]):
            return frame
    return None, None, None


def marked(lines: Sequence[str]) -> tuple[int | None, int | None]:
    """Return line and column that a code frame points at: ``> 4 |  x`` and a caret below it."""
    for number, line in enumerate(lines):
        found = re.match(r"^\s*>\s*(\d+) \|", line)
        if found is None:
            continue
        below = lines[number + 1] if number + 1 < len(lines) else ""
        column = below.find("^") - below.find("|") - 1 if re.match(r"^\s*\|\s*\^", below) else None
        return int(found[1]), column
    return None, None

"""
From the lines of a log to a few records: each error once, with how often and where it was printed.

A `Collector` is fed lines in their order and keeps nothing but the error that is being printed and what it
has found, so it can be fed as they come. Pure but for `collect`, which reads a log.
"""

from __future__ import annotations

from devsup.logs.cursor import format_cursor
from devsup.logs.errors import metro, next, node, python, vite  # noqa: A004 - the tool is called so
from devsup.logs.errors.fault import REQUEST
from devsup.logs.scan import Scan, text_of
from devsup.models import Finding, LogPage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.logs.errors.fault import Fault

__all__ = ["TOOLS", "Collector", "collect"]

#: The first that knows a line reads it.
TOOLS: tuple[Any, ...] = (next, vite, metro, python, node)
#: Lines of one error; a stack is never longer, and what is was no error.
MOST_LINES = 250
#: Records of one answer: the newest. One that has more to say has one thing to say.
MOST = 30

#: One of these is in every line with which an error begins, or is the newline before it: the rest is skipped
#: at the speed of a search for bytes.
_SIGNS = (
    *("⨯".encode(), b"rror", b"ERROR", b"raceback", b"ailed", b"xception", b" 50", b"m50", b"\r"),
    *(b"\n./", b"\n../", b"\n/", b"\nfile:", b"\n\x1b"),
)


def _begins_another(tool: Any, line: str) -> bool:
    # What these print begins unmistakably, and frames of others go on for as long as lines are indented.
    if line.startswith("  "):
        return False
    return any(other is not tool and other.begins(line) for other in (next, vite, metro))


class Collector:
    """Finds errors in lines; ``root`` is the folder below which files are named without it."""

    def __init__(self, generation: int, root: str) -> None:
        self._generation = generation
        self._root = root.rstrip("/") + "/"
        self._found: dict[tuple[Any, ...], list[Any]] = {}
        self._tool: Any = None
        self._lines: list[str] = []
        self._began = 0

    @property
    def open_at(self) -> int | None:
        """Where the error began whose end is not known yet; None where there is none."""
        return self._began if self._tool is not None else None

    def feed(self, line: str, at: int) -> None:
        """Take the next line, which begins at ``at``."""
        if self._tool is not None:
            more = len(self._lines) < MOST_LINES and not _begins_another(self._tool, line)
            if more and self._tool.goes_on(line, self._lines):
                self._lines.append(line)
                return
            self.finish()
        for tool in TOOLS:
            if tool.begins(line):
                self._tool, self._lines, self._began = tool, [line], at
                alone = tool.read([line])
                if alone is not None and alone.kind == REQUEST:
                    self.finish()  # there is no more to it
                return

    def finish(self) -> None:
        """Count what is being printed as printed."""
        if self._tool is None:
            return
        fault: Fault | None = self._tool.read(self._lines)
        self._tool = None
        if fault is None:
            return
        file = fault.file.removeprefix(self._root) if fault.file is not None else None
        key = (fault.kind, fault.message, file, fault.line, fault.column)
        seen = self._found.pop(key, None)  # the newest goes to the end
        cursor = format_cursor(self._generation, self._began)
        self._found[key] = [1, cursor, cursor] if seen is None else [seen[0] + 1, seen[1], cursor]

    def feed_block(self, start: int, raw: bytes) -> None:
        """Take many whole lines at once; where no error is being printed, only those that may begin one."""
        at, end, signs = 0, len(raw), [-1] * len(_SIGNS)
        while at < end:
            if self._tool is None and at:
                # A newline that is a sign stands before its line.
                for number, sign in enumerate(_SIGNS):
                    if signs[number] < at - 1:
                        place = raw.find(sign, at - 1)
                        signs[number] = place if place >= 0 else end
                nearest = min(place + (raw[place : place + 1] == b"\n") for place in signs)
                if nearest >= end:
                    return
                at = max(at, raw.rfind(b"\n", 0, nearest) + 1)
            stop = raw.find(b"\n", at) + 1 or end
            self.feed(text_of(raw[at:stop]), start + at)
            at = stop

    def findings(self) -> tuple[list[Finding], bool]:
        """Return what was found, the oldest first, and whether there was more than an answer holds."""
        all_of = [Finding(*key, *seen) for key, seen in self._found.items()]
        return all_of[-MOST:], len(all_of) > MOST


def collect(
    path: str, offset: int | None, *, generation: int, root: str, ended: bool, whole: bool = False
) -> LogPage:
    """
    Return the errors in the log at ``path`` from ``offset`` on.

    An error whose end is not there yet is left to the next call, unless nothing was written for a moment or
    nothing will be. ``whole`` takes it as it is.

    :raises NotFound, RegistryUnusable, Busy: as `LogFile`
    """
    scan = Scan(path, offset, over=ended or whole)
    collector = Collector(generation, root)
    for start, raw in scan.blocks():
        collector.feed_block(start, raw)
    at = scan.at
    if collector.open_at is not None and not (ended or whole or scan.stalled):
        at = collector.open_at
    else:
        collector.finish()
    found, more = collector.findings()
    return LogPage(
        text="",
        errors=found,
        next_cursor=format_cursor(generation, at),
        truncated=scan.truncated or more,
        reset=scan.reset,
        generation=generation,
        ended=ended,
    )

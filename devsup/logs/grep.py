"""
Pages of the lines that match: the last ones, or those behind a cursor. A cursor of these is one of the log.

Lines are matched as they are shown, without colours and superseded progress. A line that has no end yet is
left to the next page, unless nothing more will come. Nothing is kept between calls.
"""

from __future__ import annotations

import re
from collections import deque

from devsup.errors import UsageError
from devsup.logs.cursor import format_cursor
from devsup.logs.reader import budget_of
from devsup.logs.scan import Scan, text_of
from devsup.models import LogPage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Pattern

__all__ = ["compiled", "page"]


def compiled(expression: str) -> Pattern[str]:
    """
    Return a regular expression.

    :raises UsageError: it is none
    """
    try:
        return re.compile(expression)
    except re.error as error:
        raise UsageError(
            f"`--grep` is no regular expression: {error}",
            hint="put a backslash before what is meant as it stands",
        ) from None


def page(
    path: str,
    offset: int | None,
    expression: Pattern[str],
    *,
    generation: int,
    ended: bool,
    lines: int | None,
    max_bytes: int | None,
) -> LogPage:
    """
    Return the matching lines from ``offset`` on, as many as fit; the last of them, where that is None.

    One line that has more than ``max_bytes`` by itself is cut.

    :raises UsageError: no page can keep to these bounds
    :raises NotFound, RegistryUnusable, Busy: as `LogFile`
    """
    budget = budget_of(lines, max_bytes)
    scan = Scan(path, offset, over=ended)
    newest = offset is None
    found: deque[str] = deque(maxlen=lines if newest else None)
    size, at, left_out = 0, scan.at, False
    for start, raw in scan.blocks():
        at = start
        for line in raw.splitlines(keepends=True) if b"\r" not in raw else _lines(raw):
            text = f"{text_of(line)}\n"
            if expression.search(text[:-1]):
                data = text.encode()
                size += len(data)
                if not newest and (len(found) == lines or (found and size > budget)):
                    return _answer(found, at, scan, generation, over=False, left_out=False)
                found.append(text if len(data) <= budget else data[:budget].decode(errors="ignore"))
            at += len(line)
    size = sum(len(text.encode()) for text in found)
    while newest and len(found) > 1 and size > budget:
        size -= len(found.popleft().encode())
        left_out = True
    return _answer(found, scan.at, scan, generation, over=ended and scan.at >= scan.end, left_out=left_out)


def _answer(
    found: deque[str], at: int, scan: Scan, generation: int, *, over: bool, left_out: bool
) -> LogPage:
    return LogPage(
        text="".join(found),
        next_cursor=format_cursor(generation, at),
        truncated=scan.truncated or left_out,
        reset=scan.reset,
        generation=generation,
        ended=over,
    )


def _lines(raw: bytes) -> list[bytes]:
    # A carriage return is no end of a line here, which `splitlines` takes it for.
    return [line + b"\n" for line in raw.split(b"\n")[:-1]] or [raw]

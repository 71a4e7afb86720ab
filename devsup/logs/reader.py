"""
A reader that comes back with its cursor misses nothing and sees nothing twice.

Pages of a session's logs by cursor, a wait for the next one, and short tails for messages. Nothing is locked
or kept between calls: readers are independent of each other, of the writer, and of the one who cuts old
bytes off. A page costs memory in proportion to itself, not to the log.
"""

from __future__ import annotations

import time

from devsup import masking
from devsup.errors import DevsupError, NotFound, UsageError
from devsup.logs.cursor import format_cursor, parse_cursor
from devsup.logs.files import LogFile, Passed
from devsup.logs.text import take
from devsup.models import LogPage
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULT_LINES",
    "DEFAULT_MAX_BYTES",
    "budget_of",
    "end_of",
    "last_line",
    "page",
    "tail_text",
    "wait_for_more",
]

#: What a call that names no bound gets: a few screens of lines, and never more than an agent's context can
#: bear.
DEFAULT_LINES = 100
DEFAULT_MAX_BYTES = 64 * 1024

#: Bytes read at a time; several times what `devsup.logs.text` looks ahead.
BLOCK = 64 * 1024
#: Superseded progress and other silence that one page skips at most: a second of work at the worst.
SKIP = 2 * 1024 * 1024
#: A wait looks at the size of the log after these pauses, in seconds: growing from the first to the last.
FIRST_PAUSE, LAST_PAUSE = 0.01, 0.1
#: How far back a tail looks for its lines; escapes and progress make raw bytes many times the text.
TAIL_WINDOW = 256 * 1024
#: No page is longer, whatever was asked for: the rest is for the next.
MAX_PAGE = 16 * 1024 * 1024

_ALL = 1 << 62


class _Part(Record):
    """Text, where it ends in its generation, and what `LogPage` says of it; ``over`` is its ``ended``."""

    text: str
    end: int
    truncated: bool = False
    reset: bool = False
    over: bool = False


def page(
    path: str,
    *,
    generation: int,
    ended: bool,
    older: Callable[[int], str | None],
    after: str | None = None,
    lines: int | None = None,
    max_bytes: int | None = None,
) -> LogPage:
    """
    Return one page of a session whose current ``generation`` logs to ``path``.

    With ``after``: what follows that cursor, at most ``lines`` lines (default: no limit) and ``max_bytes``
    (default 64 KiB). Without: the last ``lines`` lines within ``max_bytes``; neither given, the last 100
    lines within 64 KiB; ``max_bytes`` alone, as many lines as it holds. ``max_bytes`` counts the text as
    UTF-8, and a page has one character at least. A page of less than was there is no sign of the end; an
    empty one with a new cursor skipped what was drawn over.

    ``older`` gives the log of an earlier generation of the session, if that still exists: a cursor of one
    gets the rest of it first, then, with ``reset``, the next. ``ended`` must have been looked up before the
    call; in the answer it means that nothing will ever follow ``next_cursor``.

    :raises UsageError: bad cursor or bound
    :raises NotFound: the current log is gone
    :raises RegistryUnusable: it cannot be read
    """
    budget = budget_of(lines, max_bytes)
    if after is None:
        count = lines if lines is not None else DEFAULT_LINES if max_bytes is None else _ALL
        part = _steady(path, lambda log: _tail(log, lines=count, budget=budget, over=ended))
        return _page(part, generation)
    count = _ALL if lines is None else lines
    of, offset = parse_cursor(after)
    reset = of != generation
    for number, name, start in _earlier(of, offset, generation, older):
        try:
            part = _continue(name, start, lines=count, budget=budget, over=True)
        except NotFound:  # pruned meanwhile
            continue
        if (part.text or not part.over) and not part.reset:
            return _page(part.replace(reset=number != of, over=False), number)
    part = _continue(path, None if reset else offset, lines=count, budget=budget, over=ended)
    return _page(part.replace(reset=part.reset or reset), generation)


def budget_of(lines: int | None, max_bytes: int | None) -> int:
    """
    Return how many bytes a page may have for which these bounds were asked.

    :raises UsageError: no page can keep to them
    """
    budget = DEFAULT_MAX_BYTES if max_bytes is None else min(max_bytes, MAX_PAGE)
    if budget < 1:
        raise UsageError(f"`--max-bytes` is {budget}, and a page needs 1 at least", hint="devsup logs --help")
    if lines is not None and lines < 0:
        raise UsageError(f"the number of lines is {lines}, less than none", hint="devsup logs --help")
    return budget


def wait_for_more(
    path: str,
    offset: int,
    *,
    deadline: float,
    ended: Callable[[], bool],
    rest: Callable[[float], None] = time.sleep,
) -> None:
    """
    Return when a page after ``offset`` would have something new, when ``ended()``, or at ``deadline``.

    ``deadline`` is a time of `time.monotonic`. ``ended`` must also be true when the log belongs to an earlier
    generation by now. ``rest`` waits for a number of seconds between two looks. A log that is not there yet
    counts as empty.
    """
    pause, at, seen = FIRST_PAUSE, offset, (-1, False)
    while not ended():
        try:
            with LogFile(path) as log:
                now = (log.end, log.stalled)
                if log.end < at:
                    return
                part = _forward(log, at, budget=BLOCK) if now != seen else None
        except NotFound:
            part = None
        else:
            if part is not None:
                if part.text or part.end - at >= SKIP:
                    return
                at, seen = part.end, now  # progress that was drawn over is nothing new
        left = deadline - time.monotonic()
        if left <= 0:
            return
        rest(min(pause, left))
        pause = min(pause * 1.5, LAST_PAUSE)


def tail_text(path: str, *, lines: int = 20, max_bytes: int = 4096) -> str:
    """
    Return the last lines as they stand, also an unfinished one; nothing if there is no log to read.

    Of more than ``max_bytes`` it is the end; what stands there of a line is masked before the line is cut.
    """
    try:
        # With more before it, so that a secret across the cut is seen whole.
        text = _steady(path, lambda log: _tail(log, lines=lines, budget=4 * max_bytes, over=True)).text
    except DevsupError:
        return ""
    if len(text.encode()) <= max_bytes:
        return text
    data = masking.text(text).encode()
    return _last_bytes(data, max_bytes) if len(data) > max_bytes else data.decode()


def end_of(path: str, generation: int) -> str:
    """
    Return the cursor behind all that was written so far.

    :raises NotFound, RegistryUnusable, Busy: as `LogFile`
    """
    with LogFile(path) as log:
        return format_cursor(generation, log.end)


def last_line(path: str, max_chars: int) -> str:
    """
    Return the last line with anything on it, nothing if there is none.

    One of more than ``max_chars`` is masked and then cut.
    """
    for line in reversed(tail_text(path).split("\n")):
        if text := line.strip():
            return masking.cut(text, max_chars)
    return ""


def _page(part: _Part, generation: int) -> LogPage:
    return LogPage(
        text=part.text,
        next_cursor=format_cursor(generation, part.end),
        truncated=part.truncated,
        reset=part.reset,
        generation=generation,
        ended=part.over,
    )


def _earlier(
    of: int, offset: int, generation: int, older: Callable[[int], str | None]
) -> list[tuple[int, str, int | None]]:
    """Return generation, path and start of each log that a cursor has before it, the current one excepted."""
    first = older(of) if of < generation else None
    if first is None:
        return []
    later = ((number, older(number)) for number in range(of + 1, generation))
    return [(of, first, offset), *((number, name, None) for number, name in later if name is not None)]


def _continue(path: str, offset: int | None, *, lines: int, budget: int, over: bool) -> _Part:
    return _steady(path, lambda log: _forward(log, offset, lines=lines, budget=budget, over=over))


def _steady(path: str, work: Callable[[LogFile], _Part]) -> _Part:
    """Do ``work`` on a moment of the log; once more where the bound has overtaken it."""
    # It ends: a cut takes a good part of the log, and what follows it stays until as much is written again.
    while True:
        with LogFile(path) as log:
            try:
                return work(log)
            except Passed:
                continue


def _forward(
    log: LogFile, offset: int | None, *, lines: int = _ALL, budget: int, over: bool = False
) -> _Part:
    """Return what follows ``offset``; all there is, where that is None or not in the log (any more)."""
    reset = offset is not None and offset > log.end
    truncated = offset is not None and offset < log.first
    at = _oldest_line(log) if offset is None or reset or truncated else offset
    texts: list[str] = []
    first, left = at, budget
    while lines and at < log.end and at - first < SKIP and (not texts or left * 4 > budget):
        try:
            inside = log.inside(at)
            raw = log.read(at, max(BLOCK, min(left, BLOCK * 16)))
        except Passed:
            if not texts:
                raise
            break  # the next page says that something is missing
        last = at + len(raw) >= log.end
        text, used = take(
            raw,
            inside=inside,
            budget=left,
            lines=lines,
            cut=not texts,
            stalled=last and log.stalled,
            over=last and over,
        )
        if not used:
            break
        at += used
        if text:
            texts.append(text)
            left -= len(text.encode())
            lines -= min(lines, text.count("\n"))
    return _Part("".join(texts), at, truncated, reset, over and at >= log.end)


def _tail(log: LogFile, *, lines: int, budget: int, over: bool) -> _Part:
    """Return the last ``lines`` lines, as far as they fit."""
    lines = min(lines, budget + 1)  # no more can be shown, and one more tells that they were not all
    at, truncated = _lines_back(log, lines, max(TAIL_WINDOW, 4 * budget))
    texts: list[str] = []
    while at < log.end:
        raw = log.read(at, BLOCK)
        last = at + len(raw) >= log.end
        text, used = take(
            raw,
            inside=log.inside(at),
            budget=3 * BLOCK,
            lines=_ALL,
            stalled=last and log.stalled,
            over=last and over,
        )
        if not used:
            break
        at += used
        texts.append(text)
    text = "".join(texts)
    parts = text.split("\n")
    spare = len(parts) - lines - (not parts[-1])
    if spare > 0:
        text, truncated = "\n".join(parts[spare:]) if lines else "", False
    data = text.encode()
    if len(data) > budget:
        text, truncated = _last_bytes(data, budget), True
    return _Part(text, at, truncated, over=over and at >= log.end)


def _last_bytes(data: bytes, budget: int) -> str:
    """Return the end of a text: whole lines, or, of a line that is too long, whole characters."""
    _, _, rest = data[-budget - 1 :].partition(b"\n")
    return (rest or data[-budget:]).decode("utf-8", "ignore")


def _lines_back(log: LogFile, lines: int, window: int) -> tuple[int, bool]:
    """Return where the last ``lines`` lines begin, and whether that is further than ``window``."""
    floor = max(log.first, log.end - window)
    at, wanted = log.end, lines + 1
    while at > floor:
        start = max(floor, at - BLOCK)
        raw = log.read(start, at - start)
        found = raw.count(b"\n")
        if found >= wanted:
            end = len(raw)
            for _ in range(wanted):
                end = raw.rindex(b"\n", 0, end)
            return start + end + 1, False
        at, wanted = start, wanted - found
    if floor == log.first:
        return _oldest_line(log), log.first > 0
    return _line_start(log, floor), True


def _oldest_line(log: LogFile) -> int:
    """Return where the first whole line begins that is still there."""
    return _line_start(log, log.first) if log.first else 0


def _line_start(log: LogFile, offset: int) -> int:
    """Return the next beginning of a line or, if that is far, of a segment or of a character."""
    raw = log.read(offset, BLOCK)
    for mark in (b"\n", b"\r"):
        if (found := raw.find(mark)) >= 0:
            return offset + found + 1
    return offset + next((i for i, byte in enumerate(raw[:4]) if not 0x80 <= byte < 0xC0), 0)

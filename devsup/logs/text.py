"""
What the raw bytes of a log say as text, in pieces that add up to the whole.

A log is lines, and a line is segments: the states of a progress display, each drawn over the one before by a
carriage return. Cleaning keeps the last segment of each line, drops escape sequences and control characters,
and replaces what is not UTF-8. The rules, kept by `clean` and `take` alike:

1. A carriage return with nothing visible between it and the newline belongs to the line's end.
2. Any other one supersedes the segment before it, if that has at most `SEGMENT` bytes and no part of it was
   given to the reader yet. Otherwise it is a newline: what was shown cannot be taken back.
3. An escape sequence never spans a carriage return or a newline, and is never longer than about `SEGMENT`.

Each decision depends on nothing but the place where a segment begins and a bounded number of bytes behind
it, and the byte before a place tells whether it is inside a segment. So a cursor needs no state beyond its
offset, and reading on from any offset that `take` gave continues the same text. Pure functions; nothing here
waits or reads.
"""

from __future__ import annotations

import codecs
import re

__all__ = ["SEGMENT", "clean", "take"]

#: Longest segment that counts as progress: a few hundred columns, with room for colours and UTF-8.
SEGMENT = 4096

# Bounds everywhere: a look ahead must end within the block that was read.
_NOTHING = rb"(?:[\r\0]|\x1b\[[0-9;]{0,32}m){0,8}"
_OPEN = rb"(?:\x1b(?:\[[0-9;]{0,32})?)?\Z"  # the bytes end here, and more of nothing may follow
_SUPERSEDED = re.compile(rb"(?<![^\r\n])[^\r\n]{0,4096}+\r(?!" + _NOTHING + rb"(?:\n|" + _OPEN + rb"))")
_LINE_END = re.compile(rb"\r" + _NOTHING + rb"(?:(\n)|" + _OPEN + rb")")
_BREAK = re.compile(rb"[\r\n]")
_CSI = rb"\[[0-?]{0,256}[ -/]{0,16}"
_STRING = rb"[\]PX^_][^\x07\x1b\r\n]{0,4096}"  # OSC and the like: a title, a link
_ESCAPE = re.compile(
    rb"\x1b(?:" + _CSI + rb"[@-~]?|" + _STRING + rb"(?:\x07|\x1b\\)|[ -/]{0,2}[0-~]?)",
)
_UNFINISHED = re.compile(rb"\x1b(?:" + _CSI + rb"|" + _STRING + rb"\x1b?|[ -/]{0,2})\Z")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(raw: bytes, *, inside: bool = False) -> str:
    """
    Return the text of ``raw``, as if nothing followed it.

    ``inside``: it begins inside a segment whose beginning the reader has.
    """
    if not inside:
        return _plain(_collapse(raw))
    found = _BREAK.search(raw)
    if found is None:
        return _plain(raw)
    at = found.start()
    if raw[at] == 13 and not _LINE_END.match(raw, at):
        return _plain(raw[:at] + b"\n" + _collapse(raw[at + 1 :]))
    return _plain(raw[:at] + _collapse(raw[at:]))


def take(
    raw: bytes,
    *,
    inside: bool,
    budget: int,
    lines: int,
    cut: bool = True,
    stalled: bool = False,
    over: bool = False,
) -> tuple[str, int]:
    """
    Return text from the front of ``raw``, and the number of bytes it stands for.

    At most ``lines`` lines and ``budget`` bytes of UTF-8 (but one character at least), ending at a newline
    where a whole line fits; else, if ``cut``, inside the line. A last line without its newline is given only
    if it is longer than any progress, or if it is ``stalled`` (nothing came for a while) or ``over``
    (nothing will come). Zero bytes: nothing of it is decided yet, or nothing fits.
    """
    whole = _whole_lines(raw, budget, lines)
    text = clean(raw[:whole], inside=inside)
    if _size(text) > budget:  # undecodable bytes grow threefold
        whole = _whole_lines(raw, budget // 3, lines)
        text = clean(raw[:whole], inside=inside)
    rest = raw[whole:]
    room = budget - _size(text)
    if not rest or room <= 0 or lines <= raw.count(b"\n", 0, whole) or (whole and b"\n" in rest):
        return text, whole
    more, used = _take_line(
        rest,
        inside=inside and not whole,
        budget=room,
        cut=cut and not text,
        stalled=stalled,
        over=over,
    )
    return text + more, whole + used


def _take_line(
    raw: bytes, *, inside: bool, budget: int, cut: bool, stalled: bool, over: bool
) -> tuple[str, int]:
    """Do what `take` does, for a first line that has no end yet or does not fit as a whole."""
    at = 0
    if not inside:
        while found := _SUPERSEDED.match(raw, at):
            at = found.end()
    found = _BREAK.search(raw, at)
    end = found.start() if found else len(raw)
    newline, after = _terminator(raw, end, over=over)
    if not (inside or after or stalled or over or end - at > SEGMENT):
        return "", at
    segment = raw[at:end]
    if not found and not over:
        segment = segment[: _finished(segment)]
    text, used = _fit(segment, budget)
    fits = used == len(segment) and _size(text) + len(newline) <= budget
    if after and fits:
        return text + newline, after
    if cut or (fits and (stalled or over)):
        return text, at + used
    return "", at


def _terminator(raw: bytes, end: int, *, over: bool) -> tuple[str, int]:
    """Return what ends the segment at ``end``, and where the next one begins: 0 where that is open."""
    if end == len(raw):
        return "", end if over else 0
    if raw[end] == 10:
        return "\n", end + 1
    found = _LINE_END.match(raw, end)
    if not found:
        return "\n", end + 1
    if found[1]:
        return "\n", found.end()
    return "", found.end() if over else 0


def _whole_lines(raw: bytes, limit: int, lines: int) -> int:
    """Return how many bytes the first ``lines`` lines have, as far as they end within ``limit``."""
    end = raw.rfind(b"\n", 0, limit) + 1
    if raw.count(b"\n", 0, end) <= lines:
        return end
    end = 0
    for _ in range(lines):
        end = raw.index(b"\n", end) + 1
    return end


def _collapse(raw: bytes) -> bytes:
    """Return ``raw`` with the carriage returns resolved."""
    if b"\r" not in raw:
        return raw
    raw = _SUPERSEDED.sub(b"", raw)
    raw = _LINE_END.sub(rb"\1", raw)
    return raw.replace(b"\r", b"\n")


def _plain(raw: bytes) -> str:
    # A NUL in place of each sequence, so that the halves of a character around one do not become a whole.
    if b"\x1b" in raw:
        raw = _ESCAPE.sub(b"\0", raw)
    return _CONTROL.sub("", raw.decode("utf-8", "replace"))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _fit(segment: bytes, budget: int) -> tuple[str, int]:
    """Return the text of as much of ``segment`` as has ``budget`` bytes, but of one character at least."""
    text = _plain(segment)
    if _size(text) <= budget:
        return text, len(segment)
    escapes = [found.span() for found in _ESCAPE.finditer(segment)]
    low, high = 0, len(segment)
    while high - low > 1:
        middle = (low + high) // 2
        if _size(_plain(segment[: _boundary(segment, middle, escapes)])) <= budget:
            low = middle
        else:
            high = middle
    end = _boundary(segment, low, escapes)
    if not _plain(segment[:end]):
        start, end = end, end + 1
        while end < len(segment) and _boundary(segment, end, escapes) <= start:
            end += 1
    return _plain(segment[:end]), end


def _boundary(segment: bytes, at: int, escapes: list[tuple[int, int]]) -> int:
    """Return the last place up to ``at`` that is neither inside an escape sequence nor inside a character."""
    for start, end in escapes:
        if start < at < end:
            return start
        if start >= at:
            break
    return _character(segment, at)


def _character(segment: bytes, at: int) -> int:
    """Return ``at``, or the beginning of the character that is incomplete there."""
    for lead in range(at - 1, max(at - 4, -1), -1):
        if segment[lead] >= 0xC0:
            if codecs.utf_8_decode(segment[lead:at], "replace", False)[1] == at - lead:
                return at
            # So far it is incomplete; the next byte, where there is one, goes on with it or begins another.
            text, used = codecs.utf_8_decode(segment[lead : at + 1], "replace", False)
            return lead if not used or (len(text) == 1 and used > at - lead) else at
        if segment[lead] < 0x80:
            break
    return at


def _finished(segment: bytes) -> int:
    """Return where the last escape sequence or character of ``segment`` begins, if it is not complete yet."""
    found = _UNFINISHED.search(segment, max(0, len(segment) - SEGMENT - 8))
    return found.start() if found else _character(segment, len(segment))

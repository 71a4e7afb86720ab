"""Cleaning: what is shown of raw bytes, and that pieces of it add up to the whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsup.logs.text import SEGMENT, clean, take

#: Whatever a decision could hang on, more often than chance would bring it.
SHORT = (
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\r\r\n",
        b"\0",
        b"a",
        b"ready",
        b"50%",
        b" ",
        b"\x07",
        b"\x08",
        b"3",
        b"1m",
        b";",
    ),
    *(
        b"\xe2\x9c\x93",
        b"\xe2\x9c",
        b"\x93",
        b"\xf0\x9f\x9a\x80",
        b"\xf0\x9f",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc2\x9b",
    ),
    *(
        b"\x1b",
        b"\x1b[",
        b"\x1b[31m",
        b"\x1b[0m",
        b"\x1b[38;2;255;100;0m",
        b"\x1b[2K",
        b"[",
        b"\x1b(B",
        b"\x1b(",
    ),
    *(b"\x1b]0;title\x07", b"\x1b]8;;http://x\x1b\\", b"\x1b]", b"\x1b\\", b"]", b"\\"),
)
LONG = (
    *(b"x" * (SEGMENT - 1), b"x" * SEGMENT, b"x" * (SEGMENT + 1), b"\x1b]" + b"t" * SEGMENT),
    *(b"\r" * 7, b"\r" * 8, b"\0" * 9, b"\x1b[0m" * 8, b"\x1b[0m\r" * 4),
)
SHORT_RAW = st.lists(st.sampled_from(SHORT) | st.binary(max_size=6), max_size=30).map(b"".join)
RAW = st.lists(st.sampled_from(SHORT + LONG) | st.binary(max_size=6), max_size=24).map(b"".join)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"one\ntwo", "one\ntwo"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"one\r\r\n", "one\n"),
        (b"10%\r20%\r100%\nready\n", "100%\nready\n"),
        (b"10%\r20%\r", "20%"),
        (b"10%\r20%\r\x1b[0", "20%"),
        (b"10%\r\x1b[K20%\r\x1b[0m\n", "20%\n"),
        (b"x" * (SEGMENT + 1) + b"\rnext\n", "x" * (SEGMENT + 1) + "\nnext\n"),
        (b"\x1b[1m\x1b[38;2;1;2;3mbold\x1b[22m\x1b[39m\n", "bold\n"),
        (b"\x1b[?25h", ""),
        (b"\x1b]0;a title\x07a\x1b]8;;http://h/p\x1b\\link\x1b]8;;\x1b\\\n", "alink\n"),
        (b"\x1b(Bplain\x1b7\x1b8\n", "plain\n"),
        (b"cut \x1b[31\nnext\n", "cut \nnext\n"),
        (b"cut \x1b[31", "cut "),
        (b"\xe2\x9c\x93 ok \xff\xe2\x9c\n", "✓ ok \ufffd\ufffd\n"),
        (b"\xe2\x9c\x1b[0m\x93\n", "\ufffd\ufffd\n"),
        (b"\0\0a\0b\n", "ab\n"),
        (b"bell\x07 back\x08\tc1 \xc2\x9b31m\n", "bell back\tc1 31m\n"),
    ],
)
def test_clean_keeps_what_a_terminal_would_show_last(raw: bytes, text: str) -> None:
    assert clean(raw) == text


@given(RAW)
def test_nothing_that_steers_a_terminal_is_left(raw: bytes) -> None:
    assert not [sign for sign in clean(raw) if (sign < " " and sign not in "\t\n") or "\x7f" <= sign < "\xa0"]


def _continue(raw: bytes, at: int, budget: int, lines: int, *, over: bool) -> tuple[str, int]:
    inside = at > 0 and raw[at - 1] not in b"\r\n"
    text, used = take(raw[at:], inside=inside, budget=budget, lines=lines, over=over)
    assert len(text.encode()) <= max(budget, 9)  # an encoded surrogate is one thing, and three U+FFFD
    return text, at + used


def _sum_of_pieces(raw: bytes, steps: list[tuple[int, int, int]], rest: int) -> str:
    texts, at, written = [], 0, 0
    for more, budget, lines in steps:
        written = min(len(raw), written + more)
        text, at = _continue(raw[:written], at, budget, lines, over=False)
        texts.append(text)
    while at < len(raw):
        before = at
        text, at = _continue(raw, at, rest, 1 << 30, over=True)
        texts.append(text)
        assert at > before
    return "".join(texts)


@settings(deadline=None)
@given(
    SHORT_RAW,
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 40), st.integers(1, 3)), max_size=20),
    st.integers(1, 50),
)
def test_pieces_of_any_size_add_up_to_the_whole(
    raw: bytes, steps: list[tuple[int, int, int]], rest: int
) -> None:
    """Whatever had been written when a piece was taken, and however small it was, the sum is the same."""
    assert _sum_of_pieces(raw, steps, rest) == clean(raw)


@settings(deadline=None)
@given(
    RAW,
    st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 9000), st.integers(1, 9)), max_size=20),
    st.integers(1000, 9000),
)
def test_pieces_of_very_long_lines_add_up_too(
    raw: bytes, steps: list[tuple[int, int, int]], rest: int
) -> None:
    assert _sum_of_pieces(raw, steps, rest) == clean(raw)


@given(RAW, st.integers(1, 5000))
def test_a_piece_ends_at_a_newline_unless_its_only_line_is_too_long(raw: bytes, budget: int) -> None:
    text, used = take(raw, inside=False, budget=budget, lines=1 << 30)
    if text and not text.endswith("\n"):
        assert "\n" not in text
        assert used > SEGMENT or len(clean(raw[: raw.find(b"\n") + 1 or len(raw)]).encode()) > budget


def test_a_line_that_may_yet_be_drawn_over_waits_for_its_end() -> None:
    assert take(b"done\n50%", inside=False, budget=99, lines=99) == ("done\n", 5)
    for end in (b"\r", b"\r\0", b"\r\x1b", b"\r\x1b[0", b"\r\x1b[0m\r"):
        assert take(b"50%" + end, inside=False, budget=99, lines=99) == ("", 0)
    assert take(b"50%\r60%", inside=False, budget=99, lines=99) == ("", 4)
    assert take(b"50%\r60%", inside=False, budget=99, lines=99, over=True) == ("60%", 7)


def test_a_prompt_is_given_once_it_has_stalled() -> None:
    """What has been shown cannot be taken back, so the carriage return behind it becomes a newline."""
    assert take(b"old\nsure? ", inside=False, budget=99, lines=99, stalled=True) == ("old\nsure? ", 10)
    assert take(b"\rthen\n", inside=True, budget=99, lines=99) == ("\nthen\n", 6)
    assert take(b"\r\nthen\n", inside=True, budget=99, lines=99) == ("\nthen\n", 7)


@pytest.mark.parametrize(
    "end", [b"\x1b", b"\x1b[", b"\x1b[38;2;1", b"\x1b]8;;http://h", b"\x1b]0;t\x1b", b"\xe2\x9c", b"\xf0"]
)
def test_nothing_unfinished_is_given_from_a_very_long_line(end: bytes) -> None:
    line = b"x" * (SEGMENT + 1)
    assert take(line + end, inside=False, budget=9999, lines=9) == ("x" * len(line), len(line))


def test_a_line_of_one_character_per_page_still_moves_on() -> None:
    raw = "\x1b[31m✓\x1b[0m🚀\n".encode()
    texts, at = [], 0
    while at < len(raw):
        text, at = _continue(raw, at, 1, 9, over=False)
        texts.append(text)
    assert [text for text in texts if text] == ["✓", "🚀", "\n"]

"""What a server has written: pages by cursor, tails, and the removal of old logs."""

from __future__ import annotations

from devsup.logs.cursor import format_cursor, parse_cursor
from devsup.logs.files import prune, remove, surplus
from devsup.logs.reader import (
    DEFAULT_LINES,
    DEFAULT_MAX_BYTES,
    end_of,
    last_line,
    page,
    tail_text,
    wait_for_more,
)
from devsup.logs.text import clean

__all__ = [
    "DEFAULT_LINES",
    "DEFAULT_MAX_BYTES",
    "clean",
    "end_of",
    "format_cursor",
    "last_line",
    "page",
    "parse_cursor",
    "prune",
    "remove",
    "surplus",
    "tail_text",
    "wait_for_more",
]

"""A place in a session's logs as one opaque word: `generation:offset`, valid for ever. Pure functions."""

from __future__ import annotations

import re

from devsup.errors import UsageError

__all__ = ["format_cursor", "parse_cursor"]

#: Eighteen digits: whatever passes is a file offset that the system takes.
_CURSOR = r"([0-9]{1,18}):([0-9]{1,18})"


def parse_cursor(text: str) -> tuple[int, int]:
    """
    Return generation and offset: raw bytes since the generation began.

    :raises UsageError: it is no cursor
    """
    found = re.fullmatch(_CURSOR, text)
    if found is None:
        raise UsageError(
            f"`{text[:80]}` is not a cursor",
            hint="pass a `next_cursor` as an earlier call of `devsup logs` gave it",
        )
    return int(found[1]), int(found[2])


def format_cursor(generation: int, offset: int) -> str:
    """Return the cursor that `parse_cursor` takes apart."""
    return f"{generation}:{offset}"

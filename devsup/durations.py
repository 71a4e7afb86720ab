"""
Durations as people write them: `30s`, `15m`, `2h`, `1h30m`, `500ms`, or plain seconds.

Pure functions, for command lines and project files alike.
"""

from __future__ import annotations

import re

__all__ = ["EXAMPLES", "LONGEST", "parse", "shown"]

#: Longest duration, in seconds: a year.
LONGEST = 366 * 86400.0
#: What an error says one may write.
EXAMPLES = "write `30s`, `15m`, `2h` or a number of seconds"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ms|[smhd])")
_PLAIN = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)


def parse(text: str | float) -> float:
    """
    Return a duration in seconds; a number is one already.

    :raises ValueError: it is no duration, or longer than a year; the message says what to write
    """
    seconds = _seconds(text) if isinstance(text, str) else None if isinstance(text, bool) else float(text)
    brief = str(text) if len(str(text)) <= 20 else f"{str(text)[:20]}…"
    if seconds is None:
        raise ValueError(f"`{brief}` is no duration: {EXAMPLES}")
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"`{brief}` is not between 0 and {shown(LONGEST)}: {EXAMPLES}")
    return seconds


def _seconds(text: str) -> float | None:
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    parts = _PART.findall(text) if text.isascii() else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def shown(seconds: float) -> str:
    """Return ``seconds`` as `parse` reads them: `1h30m`, `0.2s`."""
    if seconds < 60 or seconds != int(seconds):
        return f"{seconds:g}s"
    left, text = int(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        text += f"{count}{unit}" if count else ""
    return text

"""
One text for a file name, whatever the locale of the process.

File names and arguments are bytes. Python makes texts of them by the encoding of the process, so two
processes may have two texts for one folder. What is kept (registry, markers, job files) holds `portable`
text, made of the bytes; `native` gives the text by which this process knows the same bytes. Where the
encoding is UTF-8 the two are one. Pure functions.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SAME", "native", "native_all", "portable", "portable_all"]

#: Whether the two texts are one here.
SAME = sys.getfilesystemencoding() == "utf-8"


def portable(text: str) -> str:
    """Return the text that stands for the bytes of ``text`` in every process."""
    if SAME or text.isascii():
        return text
    try:
        return os.fsencode(text).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text  # no file name or argument of this process


def native(text: str) -> str:
    """Return the text of this process for the bytes that `portable` text stands for."""
    if SAME or text.isascii():
        return text
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeError:
        return text


def portable_all(value: Any) -> Any:
    """Return ``value``, as JSON can hold it, with every text in it `portable`."""
    return value if SAME else _each(value, portable)


def native_all(value: Any) -> Any:
    """Return ``value``, as it came from JSON, with every text in it `native`."""
    return value if SAME else _each(value, native)


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_each(name, change): _each(one, change) for name, one in value.items()}
    return [_each(one, change) for one in value] if isinstance(value, list | tuple) else value

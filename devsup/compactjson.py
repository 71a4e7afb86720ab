"""
JSON without the rest of the `json` package, for what devsup wrote itself.

That package compiles regular expressions for a scanner in Python that CPython never uses: 2.3 ms that every
call of the hot lane would pay. Here its two C functions are called as it calls them. What strangers wrote
(`package.json`) is read by `json`, which also says where a mistake is. Pure functions.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["dumps", "loads"]


def _unknown(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON value")


def dumps(value: Any, *, ascii_only: bool = True, default: Callable[[Any], Any] = _unknown) -> str:
    """Return ``value`` as JSON on one line; ``default`` makes something of what JSON does not know."""
    return "".join(_encode(value, ascii_only, default))


def loads(text: str) -> Any:
    """
    Return the value behind ``text``.

    :raises ValueError: it is no JSON
    """
    text = text.strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON value") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


class _Reading:
    """What the scanner asks its decoder for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__


def _make_encode() -> Callable[[Any, bool, Callable[[Any], Any]], tuple[str, ...]]:
    import _json

    def encode(value: Any, ascii_only: bool, default: Callable[[Any], Any]) -> tuple[str, ...]:
        text = _json.encode_basestring_ascii if ascii_only else _json.encode_basestring
        make = _json.make_encoder(None, default, text, None, ":", ",", False, False, True)
        return make(value, 0)  # type: ignore[no-any-return]

    if "".join(encode([{"é": 1.5}, None], True, _unknown)) != '[{"\\u00e9":1.5},null]':
        raise ImportError("another signature")
    return encode


try:
    _encode = _make_encode()
    from _json import make_scanner

    _scan = make_scanner(_Reading)  # type: ignore[arg-type]  # it asks any object
except (ImportError, AttributeError, TypeError):  # not CPython, or one of another time
    import json

    def _encode(value: Any, ascii_only: bool, default: Callable[[Any], Any]) -> tuple[str, ...]:
        return (json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"), default=default),)

    _scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

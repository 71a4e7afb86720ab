"""
SQLite without the rest of the `sqlite3` package.

That package adds converters for dates, which nobody here uses, and imports `datetime` for them: 2 ms that
every call of the hot lane would pay.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
else:
    try:
        import _sqlite3 as sqlite3
    except ImportError:  # not CPython
        import sqlite3

__all__ = ["sqlite3"]

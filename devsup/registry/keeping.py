"""
Transactions on a connection that is kept from one call to the next, for callers who make thousands a second.

Opening takes ten times as long as a transaction of a pool. What is kept between two calls is the connection
without the registry's lock, so whoever wants to replace or migrate the file need not wait for an idle
program; each call takes the lock first and then looks whether its connection still is to the registry.

One call at a time, of whichever thread. A forked child leaves its parent's connection alone and opens its
own.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, get_ident

from devsup.registry.opening import is_current
from devsup.registry.transactions import Transactions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from devsup.models import Row
    from devsup.paths import Home
    from devsup.registry.opening import Database

    T = TypeVar("T")

__all__ = ["KeptTransactions"]

#: Connections of the parents of this process. Closing one here would end their transactions' locks.
_inherited: list[Database] = []


class KeptTransactions(Transactions):
    """
    The way into the registry for many short calls; `close` it, or leave that to the end of the process.

    Invariant, kept by ``_run``: between two calls the kept connection is in no transaction and has no lock of
    the registry.
    """

    _any_thread = True

    def __init__(self, home: Home, *, rebuild: Callable[[], list[Row]] | None = None) -> None:
        super().__init__(home, rebuild=rebuild)
        self._one_at_a_time = allocate_lock()
        self._kept: Database | None = None
        self._process = os.getpid()

    def _run(
        self,
        body: Callable[[Database], T],
        *,
        write: bool,
        any_schema: bool = False,
        single: bool = False,
    ) -> T | None:
        if self._process != os.getpid():
            self._begin_anew()
        with self._one_at_a_time:
            me, db = get_ident(), self._kept
            self._kept = None
            if db is not None:
                db = self._current(db)
            self._open[me] = db
            try:
                return super()._run(body, write=write, any_schema=any_schema, single=single)
            finally:
                db = self._open.pop(me)
                if db is not None:
                    self._keep(db)

    def _current(self, db: Database) -> Database | None:
        current = False
        try:
            current = is_current(self.home, db)
        except Exception:
            return None  # what is wrong with it is found, and told, by who opens it
        finally:
            if not current:
                db.close()
        return db if current else None

    def _keep(self, db: Database) -> None:
        # Whoever cannot write the lock file reads a file that nobody tells it about.
        if db.lock.read_only or not db.checked:
            db.close()
        else:
            db.lock.release()
            self._kept = db

    def _begin_anew(self) -> None:
        if self._kept is not None:
            _inherited.append(self._kept)
        # The lock may have been held by a thread that is not in this process.
        self._one_at_a_time, self._kept, self._process = allocate_lock(), None, os.getpid()
        self._open, self._inside = {}, set()

    def close(self) -> None:
        """Close what is kept; the next call opens it again."""
        if self._process == os.getpid():
            with self._one_at_a_time:
                db, self._kept = self._kept, None
                if db is not None:
                    db.close()

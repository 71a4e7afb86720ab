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
import time
from _thread import allocate_lock, get_ident

from devsup.errors import LockTimeout
from devsup.registry.locking import PATIENCE
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
        me = get_ident()
        if me in self._inside:
            raise RuntimeError("a transaction is already open on this registry")
        with self._one_at_a_time:
            # At each moment, also one in which a Ctrl-C comes, a connection that is open stands somewhere.
            if self._kept is not None:
                self._open[me] = self._kept
                self._kept = None
            else:
                self._open.setdefault(me, None)
            try:
                deadline = time.monotonic() + PATIENCE
                self._look_after(me)
                while True:
                    try:
                        return super()._run(body, write=write, any_schema=any_schema, single=single)
                    except LockTimeout:
                        if time.monotonic() > deadline:
                            raise
            finally:
                self._keep(me)

    def _look_after(self, me: int) -> None:
        """Take the lock of what was kept, or close it where it is not to the registry any more."""
        db = self._open[me]
        if db is None:
            return
        try:
            current = is_current(self.home, db)
        except LockTimeout:
            self._drop(me)
            raise  # who opens it would wait as long again
        except Exception:
            current = False  # what is wrong with it is found, and told, by who opens it
        if not current:
            self._drop(me)

    def _keep(self, me: int) -> None:
        db = self._open[me]
        # Whoever cannot write the lock file reads a file that nobody tells it about.
        if db is not None and (db.lock.read_only or not db.checked or db.connection.in_transaction):
            self._drop(me)
            db = None
        self._kept = db
        del self._open[me]
        if db is not None:
            db.lock.release()

    def _begin_anew(self) -> None:
        for db in (self._kept, *self._open.values()):
            if db is not None:
                _inherited.append(db)
                db.lock.close()  # it would be locked for as long as this process lives
        # Ours may have been held by a thread that is not in this process.
        self._one_at_a_time, self._kept, self._process = allocate_lock(), None, os.getpid()
        self._open, self._inside = {}, set()

    def close(self) -> None:
        """Close what is kept; the next call opens it again."""
        if self._process == os.getpid():
            with self._one_at_a_time:
                db, self._kept = self._kept, None
                if db is not None:
                    db.close()

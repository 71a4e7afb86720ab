"""
One transaction at a time and thread, on a connection that lives for one transaction or for one `with` block.

What goes wrong with the file comes out here, once: a damaged registry is moved aside, rebuilt and asked
again; a place that cannot be used becomes the error for the user. What is open belongs to the thread that
opened it; nothing here survives a fork.
"""

from __future__ import annotations

import os
import time
from _thread import get_ident

from devsup.errors import RegistryUnusable
from devsup.registry._sqlite import sqlite3
from devsup.registry.codec import Undecodable
from devsup.registry.failures import Damaged, Starved, translate, unusable
from devsup.registry.locking import PATIENCE
from devsup.registry.opening import has_this_schema, is_newer, open_database, repair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from devsup.models import Row
    from devsup.paths import Home
    from devsup.registry.opening import Database

    T = TypeVar("T")

__all__ = ["Transactions"]

#: A registry that is damaged again right after it was rebuilt is somebody's work, or a broken disk.
_ATTEMPTS = 3
#: Seconds for which "nothing was ever started" stands while no registry appears: it takes a look at every
#: process to find that out, and a hundred starts at once ask it every 20 ms.
_VACANT = 1.0


class Transactions:
    """
    The way into the registry.

    Invariants, kept by ``_run`` and by nothing else:

    1. A body sees one moment, and changes all or nothing.
    2. While a body runs no other transaction of its thread begins: a nested one is refused.
    3. After an error that concerns the file no connection to it is left open.
    """

    #: Whether a connection goes from thread to thread; see `keeping`.
    _any_thread = False

    def __init__(
        self,
        home: Home,
        *,
        rebuild: Callable[[], list[Row]] | None = None,
        patience: Callable[[], float] | None = None,
    ) -> None:
        self.home = home
        #: Asked for each connection: how many seconds it may wait for others.
        self._patience = patience or _usual
        #: One line for each time that something was wrong with the registry and was put right.
        self.warnings: list[str] = []
        self._rebuild = rebuild or self._from_the_living
        self._open: dict[int, Database | None] = {}
        self._inside: set[int] = set()
        self._vacant_until = 0.0

    def _from_the_living(self) -> list[Row]:
        # Imported where it is needed: `list` should not pay for it. A guard imports it at its start, since
        # the package may be gone by the time it needs this.
        from devsup.registry.recovery import living

        return living(self.home)

    def connection(self) -> Held:
        """Keep one connection open for the calls of a block; keep the block short, others may wait for it."""
        return Held(self)

    def _run(
        self,
        body: Callable[[Database], T],
        *,
        write: bool,
        any_schema: bool = False,
        single: bool = False,
    ) -> T | None:
        """
        Run `body` as one transaction; None where a reader finds that nothing was ever started.

        A ``single`` body is one statement, which SQLite makes a transaction of by itself. ``any_schema`` is
        for statements that name only what is frozen.
        """
        me = get_ident()
        if me in self._inside:
            raise RuntimeError("a transaction is already open on this registry")
        try:
            self._inside.add(me)
            for _ in range(_ATTEMPTS):
                try:
                    db = self._open.get(me)
                    if db is not None and not (any_schema or db.checked):
                        db.checked = has_this_schema(db)
                    if db is None or not (any_schema or db.checked):
                        db = self._connect(me, write=write, any_schema=any_schema)
                        if db is None:
                            return None
                    return self._transact(db, me, body, begin="" if single else _BEGIN[write])
                except Damaged as found:
                    damage = found
                    self._drop(me)
                    repair(self.home, damage, self._rebuild, self.warnings)
                except Starved as error:
                    self._drop(me)
                    raise error.answer from error
                except OSError as error:
                    self._drop(me)
                    raise unusable(self.home, os.strerror(error.errno or 0).lower()) from error
            raise RegistryUnusable(
                f"the registry `{self.home.registry}` cannot be read even when it is new: {damage.reason}",
                hint="set `DEVSUP_HOME` to a folder on another disk",
            )
        finally:
            self._inside.discard(me)

    def _connect(self, me: int, *, write: bool, any_schema: bool) -> Database | None:
        self._drop(me)
        if not write and time.monotonic() < self._vacant_until and not os.path.lexists(self.home.registry):
            return None
        db = open_database(
            self.home,
            write=write,
            any_schema=any_schema,
            rebuild=self._rebuild,
            warnings=self.warnings,
            any_thread=self._any_thread,
            patience=self._patience(),
        )
        if db is None:
            self._vacant_until = time.monotonic() + _VACANT
        if me in self._open:
            self._open[me] = db
        return db

    def _transact(self, db: Database, me: int, body: Callable[[Database], T], *, begin: str) -> T:
        try:
            if not begin:
                return body(db)
            try:
                db.execute(begin)
                answer = body(db)
                db.execute("COMMIT")
            except BaseException:
                _roll_back(db)
                raise
            return answer
        except sqlite3.Error as error:
            raise translate(error, self.home, db.inode, db.lock.patience) from error
        except Undecodable as error:
            if db.checked or not is_newer(db.connection):
                raise Damaged(str(error), db.inode) from error
            # A newer devsup may write what this one cannot read; that is no reason to move its registry away.
            raise RegistryUnusable(f"{error} by this devsup", hint="upgrade devsup") from error
        finally:
            if me not in self._open:
                db.close()

    def _drop(self, me: int) -> None:
        db = self._open.get(me)
        if db is not None:
            self._open[me] = None
            db.close()


_BEGIN = {False: "BEGIN", True: "BEGIN IMMEDIATE"}


def _usual() -> float:
    return PATIENCE


def _roll_back(db: Database) -> None:
    try:
        db.connection.rollback()
    except sqlite3.Error:
        pass  # SQLite has rolled back by itself; the first error is the one to tell


class Held:
    """The block of `Transactions.connection`; inner blocks of the same thread change nothing."""

    __slots__ = ("_of", "_outermost")

    def __init__(self, of: Transactions) -> None:
        self._of = of
        self._outermost = False

    def __enter__(self) -> None:
        me, held = get_ident(), self._of._open  # noqa: SLF001 - this class is a part of the other
        if me not in held:
            held[me] = None
            self._outermost = True

    def __exit__(self, *_: object) -> None:
        if self._outermost:
            self._outermost = False
            db = self._of._open.pop(get_ident())  # noqa: SLF001 - as above
            if db is not None:
                db.close()

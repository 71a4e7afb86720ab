"""
A connection to a registry that is ours, whole and of the right schema, or an error: never somebody else's
file.

Invariants, kept by `open_database` and by nothing else:

1. Whoever has a connection holds `registry.lock` shared, from before the open until after the close.
   Creating, migrating and moving aside hold it exclusively, so they happen while nobody has a connection.
2. `registry.db` appears by a rename of a complete file. It is never opened for creation, and never by
   anything but SQLite: closing any descriptor of it would drop the locks of this process's connections.
3. A file that cannot be read is moved away whole and its rows are rebuilt from the living. "No file" counts
   as "nothing was ever started" only while the lock file says that there never was one and no living process
   says otherwise.

Any number of processes and threads may open at once. Nothing waits longer than `locking.PATIENCE`.
"""

from __future__ import annotations

import os
import stat

from devsup.errors import RegistryUnusable
from devsup.paths import check_home, ensure_home
from devsup.registry import schema
from devsup.registry._sqlite import sqlite3
from devsup.registry.failures import Damaged, Starved, translate
from devsup.registry.locking import PATIENCE, FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.models import Row
    from devsup.paths import Home

__all__ = ["Damaged", "Database", "has_this_schema", "is_current", "is_newer", "open_database", "repair"]

#: Seconds for which SQLite waits on a connection that is kept, whose owner asks again: by itself it would
#: look less and less often, and eight processes on two busy cores mostly sleep.
_TURN = 0.001
#: More rounds than this mean that somebody undoes our work each time.
_ROUNDS = 8
_SAFE = frozenset(b"/-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Database:
    """One open connection and the lock that goes with it; used by one thread at a time."""

    __slots__ = ("checked", "connection", "execute", "inode", "lock")

    def __init__(self, connection: sqlite3.Connection, lock: FileLock, inode: int, *, checked: bool) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.lock = lock
        #: Of the file that is open; the path may lead to another one by now.
        self.inode = inode
        #: Whether the schema is known to be the current one.
        self.checked = checked

    def close(self) -> None:
        """Close the connection, then let go of the lock."""
        try:
            self.connection.close()
        finally:
            self.lock.close()


class _Outdated(Exception):
    """The schema is older than ours."""


def open_database(
    home: Home,
    *,
    write: bool,
    any_schema: bool,
    rebuild: Callable[[], list[Row]],
    warnings: list[str],
    any_thread: bool = False,
    patience: float = PATIENCE,
) -> Database | None:
    """
    Open the registry of `home`; create, migrate or rebuild it first where it needs that.

    Returns None to a reader (``write`` false) where nothing was ever started. With ``any_thread`` it is for
    whichever thread, one at a time. ``patience`` is that of its `FileLock`.
    """
    for _ in range(_ROUNDS):
        if not check_home(home):
            if not write and not rebuild():
                return None
            ensure_home(home)
        lock, database = FileLock(home, patience), None
        try:
            lock.share()
            seen = _look(home)
            if seen is None:
                if not write and lock.stamp is None:
                    # A look at every process takes milliseconds in which nobody could make the registry.
                    lock.release()
                    if not rebuild():
                        return None
                _replace(lock, home, None, "it was gone", rebuild, warnings)
            elif seen != lock.stamp and not lock.read_only:
                _settle(lock, home, seen, rebuild, warnings)
            else:
                connection = _connect(home, lock, seen, any_schema=any_schema, any_thread=any_thread)
                database = Database(connection, lock, seen, checked=not any_schema)
                return database
        except Damaged as damage:
            _replace(lock, home, damage.seen, damage.reason, rebuild, warnings)
        except _Outdated:
            _migrate(home, lock)
        except Starved as error:
            if write:
                raise error.answer from error
            database = _open_alone(home, lock, error, any_schema=any_schema)
            return database
        finally:
            if database is None:
                lock.close()
    raise RegistryUnusable(
        f"the registry `{home.registry}` is replaced again and again by another program",
        hint="set `DEVSUP_HOME` to a folder that only devsup writes to",
    )


def repair(home: Home, damage: Damaged, rebuild: Callable[[], list[Row]], warnings: list[str]) -> None:
    """Move the registry that was found damaged aside and rebuild it, unless somebody else just did."""
    lock = FileLock(home)
    try:
        lock.share()
        _replace(lock, home, damage.seen, damage.reason, rebuild, warnings)
    finally:
        lock.close()


# -- opening ----------------------------------------------------------------------------------------


def _look(home: Home) -> int | None:
    """Return the inode of the database, None if there is none; raise on what must not be opened."""
    path = home.registry
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise RegistryUnusable(f"the registry `{path}` is a symbolic link", hint="move it away")
    if not stat.S_ISREG(found.st_mode):
        raise Damaged("it is not a file", found.st_ino)
    if found.st_uid != os.geteuid():
        raise RegistryUnusable(
            f"the registry `{path}` belongs to user {found.st_uid}, devsup runs as user {os.geteuid()}",
            hint="give it back to its owner, or set `DEVSUP_HOME` to a folder of your own",
        )
    if found.st_size == 0:  # SQLite takes an empty file for an empty database
        raise Damaged("it is empty", found.st_ino)
    if found.st_mode & 0o177:
        try:
            os.chmod(path, 0o600)
        except OSError:
            pass  # read-only, or without modes: the folder, which is closed, has to do
    return found.st_ino


def _connect(
    home: Home, lock: FileLock, seen: int, *, any_schema: bool, any_thread: bool = False
) -> sqlite3.Connection:
    options = "mode=rw"
    if lock.read_only:
        # Without a WAL the file is all there is, and whoever cannot write needs neither locks nor a -shm.
        options = "mode=ro" if _has_wal(home) else "mode=ro&immutable=1"
    connection = None
    try:
        connection = sqlite3.connect(
            uri(home.registry, options),
            timeout=_TURN if any_thread else lock.patience,
            isolation_level=None,
            uri=True,
            check_same_thread=not any_thread,
        )
        _verify(connection, seen, any_schema=any_schema)
        if not lock.read_only:
            connection.execute("PRAGMA synchronous = OFF")
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise translate(error, home, seen, lock.patience) from error
        raise
    return connection


def _verify(connection: sqlite3.Connection, seen: int, *, any_schema: bool) -> None:
    if connection.execute("PRAGMA application_id").fetchall() != [(schema.APPLICATION_ID,)]:
        raise Damaged("it is not a registry of devsup", seen)
    if any_schema:
        return
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    if version > schema.VERSION:
        raise RegistryUnusable(
            f"the registry has schema {version}, this devsup knows {schema.VERSION}", hint="upgrade devsup"
        )
    if version < schema.VERSION:
        raise _Outdated


def has_this_schema(db: Database) -> bool:
    """Tell whether an open registry has the schema of this devsup; what cannot be read has not."""
    try:
        return db.execute("PRAGMA user_version").fetchall() == [(schema.VERSION,)]
    except sqlite3.Error:
        return False


def is_newer(connection: sqlite3.Connection) -> bool:
    """Tell whether a newer devsup has migrated this registry."""
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    return bool(version > schema.VERSION)


def is_current(home: Home, db: Database) -> bool:
    """
    Take the lock of a connection that was kept without it, and tell whether it may be used as it is.

    Not where the registry was replaced or migrated meanwhile, or its lock file was. A file that was moved
    away is closed without harm: SQLite leaves alone what stands under its name by now.
    """
    db.lock.share()
    if db.lock.stamp != db.inode or _inode(home.registry) != db.inode or not db.lock.is_in_place():
        return False
    try:
        return db.execute("PRAGMA user_version").fetchall() == [(schema.VERSION,)]
    except sqlite3.Error as error:
        raise translate(error, home, db.inode) from error


def _open_alone(home: Home, lock: FileLock, error: Starved, *, any_schema: bool) -> Database:
    """
    Open for reading where not even the shared memory file of a WAL can be made: on a full disk.

    With the lock held exclusively nobody else has a connection, so SQLite may keep that memory on its heap.
    """
    lock.exclude()
    ways = [("mode=rw", "PRAGMA locking_mode = EXCLUSIVE")]
    if not _has_wal(home):
        ways.append(("mode=ro&immutable=1", "PRAGMA query_only = ON"))
    for options, setting in ways:
        connection = None
        try:
            connection = sqlite3.connect(uri(home.registry, options), isolation_level=None, uri=True)
            connection.execute(setting).fetchall()
            _verify(connection, _inode(home.registry) or 0, any_schema=any_schema)
        except BaseException as problem:
            if connection is not None:
                connection.close()
            if not isinstance(problem, sqlite3.Error | _Outdated):
                raise
        else:
            return Database(connection, lock, _inode(home.registry) or 0, checked=not any_schema)
    raise error.answer from error


def _has_wal(home: Home) -> bool:
    try:
        return os.stat(home.registry + "-wal").st_size > 0
    except FileNotFoundError:
        return False


def _inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


# -- with the lock held exclusively -----------------------------------------------------------------


def _replace(
    lock: FileLock,
    home: Home,
    seen: int | None,
    reason: str,
    rebuild: Callable[[], list[Row]],
    warnings: list[str],
) -> None:
    """Put a new registry with the living in the place of the file `seen` (None: of a missing one)."""
    if lock.read_only:
        raise RegistryUnusable(
            f"the registry `{home.registry}` cannot be used: {reason}, and its folder is read-only",
            hint="set `DEVSUP_HOME` to a folder that can be written",
        )
    from devsup.registry.building import build, set_aside  # once in the life of most registries

    def is_done() -> bool:
        return _inode(home.registry) != seen

    if not lock.exclude(over=is_done) or is_done():
        return  # somebody else was here between our two locks
    first = seen is None and lock.stamp is None
    rows = rebuild()
    place = set_aside(home)
    build(home, lock, rows, uri, announce=not first or bool(rows))
    if not first or rows:
        moved = f" and was moved to `{place}`" if place else ""
        warnings.append(f"the registry could not be used ({reason}){moved}; {_found(_living(rows))}")


def _living(rows: list[Row]) -> int:
    return sum(row.ended_at is None for row in rows)


def _found(count: int) -> str:
    if count == 0:
        return "no running server was found"
    return "1 running server was found" if count == 1 else f"{count} running servers were found"


def _settle(
    lock: FileLock, home: Home, seen: int, rebuild: Callable[[], list[Row]], warnings: list[str]
) -> None:
    """Take in a file that is not the one the lock file speaks of: a copy put back, or a lock file deleted."""
    stamp = lock.stamp
    if stamp is not None and _has_wal(home):
        # SQLite would play somebody else's WAL into this file and call the result sound.
        raise Damaged("it was replaced beside the write-ahead log of another one", seen)
    lock.exclude()
    if _inode(home.registry) != seen or lock.stamp == seen:
        return
    from devsup.registry.building import adopt, highest_generation

    rows = rebuild()
    floor = highest_generation(home, rows)
    connection = _connect(home, lock, seen, any_schema=True)
    try:
        added, generation = adopt(connection, rows, floor)
    except sqlite3.Error as error:
        raise translate(error, home, seen) from error
    finally:
        connection.close()
    lock.write_stamp(seen, generation)
    if stamp is not None:
        warnings.append(f"the registry was replaced by another file; {_found(added)} and added to it")


def _migrate(home: Home, lock: FileLock) -> None:
    if lock.read_only:
        raise RegistryUnusable(
            f"the registry `{home.registry}` has an older schema, and its folder is read-only",
            hint="run a devsup command where the folder can be written",
        )
    lock.exclude()
    seen = _inode(home.registry) or 0
    connection = _connect(home, lock, seen, any_schema=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        if version < schema.VERSION:
            schema.migrate(connection, version)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translate(error, home, seen) from error
    finally:
        connection.close()


def uri(path: str, options: str) -> str:
    """Return an SQLite URI for a path of any bytes."""
    raw = os.fsencode(path)
    return "file:" + "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in raw) + "?" + options

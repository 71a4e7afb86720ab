"""
What the registry's tables look like, and how an older file becomes a current one.

Two kinds of tables, because two kinds of programs write here. A command comes from the installed devsup and
has just checked the schema version. A guard may be days old and meet a registry that a newer devsup has
migrated, so whatever a guard's statements name is frozen: columns may be added (nullable or with a default),
none may be renamed, dropped or given another meaning.

frozen, because guards write or copy them
    runs      one row per server, narrow: who guards and leads it, its state, port and url, its claim, its
              end. ``live`` is 1 until the end is recorded; a crashed server may stay with ``live`` 0 until
              the next start or stop of its session. scope, project, session and folder stand here, not in
              `servers`, since the unique indexes over the live rows need them.
    servers   ``description``: JSON, written once by start, copied into the history as it is. Later versions
              may put more keys into it, an older guard passes them on unread.
    leases    who has a port of a network namespace (or another number, see `pools`); ``until`` ends a lease
              whose holder is no server.
    history   ended servers: ``record`` is the whole row as JSON, the other columns are for finding it.
    events    what happened, in its absolute order; ``details`` is JSON, for what has no column.
    operations  what is being done with a server by whom, so that a stop waits for it. Who stops looks here in
              the transaction in which it claims.
    counters  ``generation``: the highest one given out; ``event:TYPE``: how many events of a type there ever
              were, also those no longer kept.
free to change by a migration
    assigned  which number of a pool an owner has for good: the automatic port of an app.
    pools     the pools of `devsup.pool` on this machine: which life of the name this is, and the highest
              fencing number given out.
    items     what they lend, see `lending`: up to when each item is held, by whom, with which number.
    clocks    by how much the clock of `items` is ahead of the uptime, for each boot of a machine.

Every statement of a migration is additive for the frozen tables. Migrations run one after another inside one
transaction, with the registry's file lock held exclusively.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from sqlite3 import Connection

__all__ = ["APPLICATION_ID", "MIGRATIONS", "VERSION", "create", "migrate"]

#: "dvsp": tells a registry from any other SQLite file.
APPLICATION_ID = 0x64767370
#: The schema this devsup reads and writes.
VERSION = 1

_TABLES = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        live INTEGER NOT NULL DEFAULT 1,
        scope TEXT NOT NULL,
        project TEXT NOT NULL,
        session TEXT NOT NULL,
        folder TEXT,
        state TEXT NOT NULL,
        starter TEXT,
        guard TEXT,
        leader TEXT,
        port INTEGER,
        url TEXT,
        listener_pid INTEGER,
        listener_inode INTEGER,
        log TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ready_at INTEGER,
        last_used_at INTEGER,
        exit_code INTEGER,
        signal INTEGER,
        ended_at INTEGER,
        reason TEXT,
        stop TEXT,
        outcome TEXT
    ) WITHOUT ROWID
    """,
    # `live` is in here, and in the next but one, so that counting live rows needs nothing but the index.
    "CREATE UNIQUE INDEX one_live_server_per_session ON runs (scope, project, session, live) WHERE live = 1",
    """
    CREATE UNIQUE INDEX one_live_server_per_folder ON runs (scope, folder)
    WHERE live = 1 AND folder IS NOT NULL
    """,
    "CREATE INDEX runs_of_project ON runs (project, session, live)",
    "CREATE TABLE servers (id TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE leases (
        netns TEXT NOT NULL,
        port INTEGER NOT NULL,
        id TEXT NOT NULL,
        until INTEGER,
        PRIMARY KEY (netns, port)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX leases_of_server ON leases (id)",
    """
    CREATE TABLE history (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        project TEXT NOT NULL,
        session TEXT NOT NULL,
        pid INTEGER,
        ended_at INTEGER NOT NULL,
        record TEXT NOT NULL
    )
    """,
    "CREATE INDEX history_of_project ON history (project)",
    "CREATE INDEX history_of_server ON history (id)",
    "CREATE INDEX history_of_pid ON history (pid)",
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        type TEXT NOT NULL,
        session TEXT,
        project TEXT,
        server TEXT,
        generation INTEGER,
        pid INTEGER,
        by TEXT,
        reason TEXT,
        exit_code INTEGER,
        details TEXT
    )
    """,
    """
    CREATE TABLE operations (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        server TEXT NOT NULL,
        generation INTEGER NOT NULL,
        by TEXT NOT NULL,
        since INTEGER NOT NULL,
        purpose TEXT NOT NULL,
        exclusive INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX operations_of_server ON operations (server)",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counters VALUES ('generation', 0)",
    """
    CREATE TRIGGER events_are_counted AFTER INSERT ON events BEGIN
        INSERT INTO counters VALUES ('event:' || NEW.type, 1)
        ON CONFLICT (name) DO UPDATE SET value = value + 1;
    END
    """,
    """
    CREATE TABLE assigned (
        pool TEXT NOT NULL,
        owner TEXT NOT NULL,
        number INTEGER NOT NULL,
        used_at INTEGER NOT NULL,
        PRIMARY KEY (pool, owner)
    ) WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX one_owner_per_number ON assigned (pool, number)",
    "CREATE TABLE pools (name TEXT PRIMARY KEY, life TEXT NOT NULL, fencing INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE items (
        pool TEXT NOT NULL,
        item TEXT NOT NULL,
        number INTEGER NOT NULL,
        offered INTEGER NOT NULL DEFAULT 1,
        until INTEGER NOT NULL,
        owner TEXT,
        fencing INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (pool, item)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX items_by_end ON items (pool, until) WHERE offered = 1",
    "CREATE TABLE clocks (boot TEXT PRIMARY KEY, ahead INTEGER NOT NULL) WITHOUT ROWID",
)

#: From each older version, the statements that lead to the next one.
MIGRATIONS: Mapping[int, Sequence[str]] = {}


def create(connection: Connection) -> None:
    """Make the tables of the current version in an empty database, in the caller's transaction."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def migrate(connection: Connection, version: int) -> None:
    """Lead tables of `version` to the current one, in the caller's transaction."""
    while version < VERSION:
        for statement in MIGRATIONS[version]:
            connection.execute(statement)
        version += 1
    connection.execute(f"PRAGMA user_version = {VERSION}")

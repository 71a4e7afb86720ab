"""The records everything speaks of: identities, servers, results. Plain and frozen."""

from __future__ import annotations

from enum import Enum

from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from devsup.pool import Item, Lease

__all__ = [
    "ADOPTED",
    "ENDED_STATES",
    "MARKER",
    "NO_GUARD",
    "SESSION_PREFIX",
    "CheckResult",
    "ConfigResult",
    "Event",
    "EventPage",
    "Events",
    "Finding",
    "FleetList",
    "FleetServer",
    "Health",
    "HealthFinding",
    "HealthPart",
    "HistoryEntry",
    "HostList",
    "HostSeen",
    "Identity",
    "InitResult",
    "LockList",
    "LockStatus",
    "LogPage",
    "Member",
    "Metrics",
    "MonitorRound",
    "Operation",
    "Outcome",
    "PoolList",
    "PoolStatus",
    "PortList",
    "PortUse",
    "PruneResult",
    "Pruned",
    "Row",
    "Scope",
    "Server",
    "ServerList",
    "StartResult",
    "State",
    "StatusResult",
    "StopClaim",
    "StopResult",
    "StopResults",
    "Story",
    "StoryEntry",
    "Unmanaged",
    "UpResult",
    "UpResults",
]


#: The environment variable that guards, servers and all their descendants carry: see `devsup.tree`.
MARKER = "DEVSUP_MARKER"
#: What the session of a named app is called: this and the name.
SESSION_PREFIX = "dev_server_"


class State(str, Enum):
    """What a server is doing; the last four are ends."""

    STARTING = "starting"
    RUNNING = "running"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    CRASHED = "crashed"
    LOST = "lost"


#: States from which nothing follows but a new generation.
ENDED_STATES = frozenset({State.STOPPED, State.EXITED, State.CRASHED, State.LOST})


class Outcome(str, Enum):
    """How a stop of one target ended."""

    STOPPED = "stopped"
    ALREADY_STOPPED = "already_stopped"
    STOPPED_BY_OTHER = "stopped_by_other"
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    FAILED = "failed"


class Identity(Record):
    """
    One process, for as long as this boot lasts.

    ``ticks`` is the kernel's start time in clock ticks since boot, 10 ms coarse. ``inode`` is that of the
    process's pidfd where the kernel makes it unique (pidfs, Linux 6.9), else 0: a pid reused within one tick
    differs only there.
    """

    pid: int
    ticks: int
    boot: str
    inode: int = 0


#: The guard of a server that has none: no kernel gives out this pid, so it is gone by every test. A row with
#: a leader and no guard at all would be one that no start ever writes.
NO_GUARD = Identity(2**31 - 1, 0, "", 0)
#: The reason in the row of a living server that devsup did not start, until it is run again.
ADOPTED = "adopted"


class Scope(Record):
    """Where a pid means something: a machine, a boot of it, a pid namespace."""

    machine: str
    boot: str
    pidns: str

    @property
    def key(self) -> str:
        """Return the one text that stands for this scope in the registry."""
        return f"{self.machine}/{self.boot}/{self.pidns}"


class StopClaim(Record):
    """Who is ending this generation, since when (ms since the epoch), and how."""

    by: Identity
    since: int
    purpose: str  # "stop" or "restart"
    grace: float
    sweep: bool


class Operation(Record):
    """What a process does with a server and a stop waits for; ``since`` is ms since the epoch."""

    number: int
    server: str
    generation: int
    by: Identity
    since: int
    purpose: str
    #: Whether no other operation may be in flight beside it.
    exclusive: bool


class Row(Record):
    """
    What the registry knows of one server: the record behind `Server`.

    Times are integers, milliseconds since the epoch. ``command`` is the argv that was executed.
    """

    id: str
    generation: int
    scope: str
    netns: str
    project: str
    session: str
    app: str | None
    kind: str
    cwd: str
    command: list[str]
    log: str
    owner: str | None
    started_at: int
    #: The folder that no second server may have, for kinds that allow one per folder; else None.
    folder: str | None = None
    asked_port: int | None = None
    state: State = State.STARTING
    starter: Identity | None = None
    guard: Identity | None = None
    leader: Identity | None = None
    port: int | None = None
    url: str | None = None
    listener_pid: int | None = None
    #: Inode of the listening socket: while it listens, port and url hold without another look.
    listener_inode: int | None = None
    ready_at: int | None = None
    last_used_at: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    ended_at: int | None = None
    reason: str | None = None
    stop: StopClaim | None = None
    #: What the one who ended it saw (keys of `StopResult`), once it has ended.
    outcome: dict[str, Any] | None = None
    #: Inodes of sockets that listened before it was started: none of them is its own.
    strangers: Iterable[int] | None = None


class Server(Record):
    """The one record that all commands speak of. Times are ISO-8601 UTC with ms; missing is None."""

    id: str
    generation: int
    session: str
    app: str | None
    kind: str
    project: str
    cwd: str
    command: list[str]
    state: State
    pid: int | None
    guard_pid: int | None
    port: int | None
    url: str | None
    started_at: str
    ready_at: str | None
    last_used_at: str | None
    exit_code: int | None
    signal: int | None
    log: str
    owner: str | None
    scope: str  # "here" or "foreign"


class FleetServer(Server):
    """
    A server of a fleet, as its guard has published it; ``state`` is "lost" where that was too long ago.

    ``host`` is the name of its host, ``seen_at`` the last sign of life, by the clock of whoever asks.
    ``scope`` is "here" for those of the state folder in which this is asked.
    """

    host: str
    seen_at: str


class Unmanaged(Record):
    """A server of this project that devsup did not start."""

    kind: str
    pid: int | None
    port: int | None
    url: str | None
    cwd: str
    log: str | None


class Member(Record):
    """A process of a server's tree, as shown to a caller."""

    pid: int
    command: str


class StartResult(Record):
    """The answer of start, restart and wait."""

    server: Server
    reused: bool
    waited_ms: int
    notes: list[str]


class UpResult(Record):
    """
    What became of one app of an `up`.

    ``outcome`` is "started", "reused", "failed", or "skipped" for one that waits on a failed one; ``error``
    has the keys of the envelope's.
    """

    app: str
    outcome: str
    server: Server | None
    error: dict[str, Any] | None


class UpResults(Record):
    """The answer of up, in the order of dependencies."""

    results: list[UpResult]
    notes: list[str]


class ConfigResult(Record):
    """
    The answer of config: what is in force.

    ``apps`` have for each key ``{"value", "source"}``, the source being "flag", "environment", "file",
    "detected" or "default"; ``fleet`` is what is in force for all of them, its ``url`` None where they are in
    none.
    """

    apps: dict[str, dict[str, dict[str, Any]]]
    fleet: dict[str, dict[str, Any]]
    notes: list[str]


class InitResult(Record):
    """The answer of init: a configuration, and whether it was written to ``path``."""

    path: str
    text: str
    written: bool
    notes: list[str]


class ServerList(Record):
    """The answer of list."""

    servers: list[Server]
    unmanaged: list[Unmanaged]
    notes: list[str]


class FleetList(ServerList):
    """The answer of list for a fleet: its servers are `FleetServer`, and nothing is unmanaged."""


class HostSeen(Record):
    """
    A host of a fleet: how many of its servers are ``up``, how many are ``lost``, and when any was seen.

    ``here`` says that it is this one.
    """

    host: str
    up: int
    lost: int
    seen_at: str
    here: bool


class HostList(Record):
    """The answer of hosts: those that have servers, by their names."""

    hosts: list[HostSeen]
    notes: list[str]


class PoolStatus(Record):
    """A pool, and who has which of its items."""

    name: str
    items: list[Item]


class PoolList(Record):
    """
    The answer of pool: the pools of a state folder or of a Redis, ``where``, which is shown without password.

    ``lease`` is the one that this call has made or renewed.
    """

    where: str
    pools: list[PoolStatus]
    lease: Lease | None
    notes: list[str]


class PortUse(Record):
    """
    One listening socket and whose it is; what the system does not tell is None.

    ``server`` is the id of ours that has it, in whatever project; then it is ``mine``.
    """

    port: int
    address: str
    pid: int | None
    command: str | None
    cwd: str | None
    server: str | None
    session: str | None
    project: str | None
    mine: bool


class PortList(Record):
    """The answer of ports; the notes say what a start of each app would meet."""

    ports: list[PortUse]
    notes: list[str]


class Pruned(Record):
    """
    Something that is there for nobody any more.

    ``kind`` is row, job, log, port, registry, config, lock or orphan, ``bytes`` what a file takes, ``done``
    whether it went.
    """

    kind: str
    what: str
    bytes: int | None
    why: str
    done: bool


class PruneResult(Record):
    """The answer of prune."""

    pruned: list[Pruned]
    notes: list[str]


class HealthFinding(Record):
    """
    Something that is not as it should be.

    ``id`` is the same each time it is seen: what it is, a colon, and which one. ``fix`` is the command or the
    sentence that mends it; it is ``safe`` where `doctor --fix` does it.
    """

    id: str
    message: str
    fix: str
    safe: bool


class HealthPart(Record):
    """What one part of a health check has found: ``status`` is "ok", "warn", "bad" or "skipped"."""

    part: str
    status: str
    ms: float
    findings: list[HealthFinding]


class Health(Record):
    """The answer of doctor; ``status`` is that of the worst part."""

    parts: list[HealthPart]
    status: str
    notes: list[str]


class StoryEntry(Record):
    """
    One sentence of a story; ``time`` is ISO-8601, None for what cannot be dated.

    ``source`` says how it is known: "event", "history", "log" or "system".
    """

    time: str | None
    text: str
    source: str


class Story(Record):
    """The answer of why, oldest first; ``next`` is what to type."""

    story: list[StoryEntry]
    next: str
    notes: list[str]


class MonitorRound(Record):
    """
    One look of a monitor: the findings that have appeared, that have gone, and that are open now.

    Each is ``{"id", "message", "project", "session"}``.
    """

    opened: list[dict[str, Any]]
    closed: list[dict[str, Any]]
    open: list[dict[str, Any]]
    notes: list[str]


class Metrics(Record):
    """The answer of metrics: OpenMetrics text."""

    text: str


class StatusResult(Record):
    """
    The answer of status: the server and the living processes of its tree.

    ``lease`` is ``{"state", "token", "fencing", "expires_at", "renewed_at"}`` of an exclusive app, its state
    "held" or "lost" and its token masked; None for others.
    """

    server: Server
    processes: list[dict[str, Any]]
    lease: dict[str, Any] | None
    notes: list[str]


class StopResult(Record):
    """What was seen of one target's stop. ``error`` is a code of the exit table, None on success."""

    target: str
    server: Server | None
    outcome: Outcome
    signals: list[str]
    escalated: bool
    ms: int
    survivors: list[Member]
    left_running: list[Member]
    port_free: bool | None
    error: str | None = None
    message: str | None = None
    #: Of what could not be stopped: what to do about it, and what a program needs to know.
    hint: str | None = None
    details: dict[str, Any] | None = None


class StopResults(Record):
    """The answer of stop and cleanup."""

    results: list[StopResult]
    notes: list[str]


class LockStatus(Record):
    """
    One lock at one moment.

    ``kind`` is `process` (between all of them) or `rw` (among the threads and tasks of one). ``holder`` is
    who has held it the longest, of all the ``holders``; each of them and of the ``waiters`` is ``{"pid",
    "who", "mode", "purpose", "since", "age_ms"}``.
    """

    name: str
    kind: str
    holder: dict[str, Any] | None
    holders: list[dict[str, Any]]
    waiters: list[dict[str, Any]]
    stats: dict[str, Any]

    @property
    def is_busy(self) -> bool:
        """Whether somebody holds it or waits for it."""
        return bool(self.holders or self.waiters)


class LockList(Record):
    """The answer of locks; the notes say what is wrong."""

    locks: list[LockStatus]
    notes: list[str]


class Finding(Record):
    """One error out of a log; ``count`` is how often it was printed, the cursors where first and last."""

    kind: str  # "compile", "runtime", "request" or "bundle"
    message: str
    file: str | None
    line: int | None
    column: int | None
    count: int
    first_cursor: str
    last_cursor: str


class LogPage(Record):
    """
    One page of a log; ``next_cursor`` is where the next one begins, for ever.

    Who asks for errors gets ``errors`` in place of a text.
    """

    text: str
    next_cursor: str
    truncated: bool
    reset: bool
    generation: int
    ended: bool
    session: str | None = None
    errors: list[Finding] | None = None


class CheckResult(Record):
    """
    Whether a server still does what it should: the answer of check.

    ``http`` is what came back: ``{"path", "status", "ms"}``, its status None where nothing did; all of it
    None where nobody was asked. ``verdict`` is "ok", "broken" or "down".
    """

    server: Server
    listening: bool
    http: dict[str, Any] | None
    new_errors: list[Finding]
    next_cursor: str
    verdict: str
    notes: list[str]


class Event(Record):
    """One entry of the history; ``seq`` gives the absolute order, ``time`` is ms since the epoch."""

    seq: int
    time: int
    type: str
    session: str | None
    project: str | None
    server: str | None
    generation: int | None
    pid: int | None
    by: str | None
    reason: str | None
    exit_code: int | None
    #: What else a program may want to know; its keys depend on the type.
    details: dict[str, Any] | None = None


class HistoryEntry(Record):
    """
    One event as callers see it: `Event` with its time as a text.

    The type `truncated`, with everything about a server None, stands for events that are no longer kept.
    """

    seq: int
    time: str | None
    type: str
    session: str | None
    project: str | None
    server: str | None
    generation: int | None
    pid: int | None
    by: str | None
    reason: str | None
    exit_code: int | None
    details: dict[str, Any] | None


class EventPage(Record):
    """Some of the history, oldest first; ``next_after`` is the number to go on after."""

    events: list[HistoryEntry]
    next_after: int


class Events(Record):
    """
    Some events as they are stored, oldest first.

    ``missed`` counts the numbers between the reader's and the oldest one kept: it lagged behind the bound.
    """

    events: list[Event]
    next_after: int
    missed: int

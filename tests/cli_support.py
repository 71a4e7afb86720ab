"""
What the tests of the command line share: a stand-in for the supervisor, records, and the documented calls.

The stand-in answers at once and remembers what it was asked; it is for tests of words, flags and shapes. What
is promised about processes is tested on the real one.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from devsup.cli import app as cli
from devsup.errors import DevsupError
from devsup.models import (
    CheckResult,
    ConfigResult,
    EventPage,
    Finding,
    Health,
    HealthFinding,
    HealthPart,
    HistoryEntry,
    HostList,
    HostSeen,
    InitResult,
    LockList,
    LockStatus,
    LogPage,
    Member,
    Metrics,
    MonitorRound,
    Outcome,
    PoolList,
    PoolStatus,
    PortList,
    PortUse,
    Pruned,
    PruneResult,
    Server,
    ServerList,
    StartResult,
    State,
    StatusResult,
    StopResult,
    StopResults,
    Story,
    StoryEntry,
    Unmanaged,
    UpResult,
    UpResults,
)
from devsup.pool import Item as PoolItem
from devsup.pool import Lease

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EVERY_CALL", "SERVES", "StandIn", "documented_calls", "make_finding", "make_server", "make_stop"]


#: They own the terminal or the standard streams, and give nobody an answer.
SERVES = {"mcp", "top"}


def make_server(**changes: Any) -> Server:
    """Return a ready web server, with ``changes``."""
    server = Server(
        id="0123456789ab",
        generation=3,
        session="dev_server_web",
        app="web",
        kind="next",
        project="/home/me/shop",
        cwd="/home/me/shop/apps/web",
        command=["node", "node_modules/.bin/next", "dev"],
        state=State.READY,
        pid=4711,
        guard_pid=4710,
        port=3000,
        url="http://localhost:3000",
        started_at="2026-01-02T03:04:05.678Z",
        ready_at="2026-01-02T03:04:07.000Z",
        last_used_at=None,
        exit_code=None,
        signal=None,
        log="/home/me/.local/state/devsup/logs/shop-1a2b3c4d/dev_server_web.3.log",
        owner="tty",
        scope="here",
    )
    return server.replace(**changes)


def make_stop(target: str = "web", **changes: Any) -> StopResult:
    """Return the result of a stop that went well, with ``changes``."""
    result = StopResult(
        target=target,
        server=make_server(state=State.STOPPED),
        outcome=Outcome.STOPPED,
        signals=["SIGTERM"],
        escalated=False,
        ms=120,
        survivors=[],
        left_running=[Member(77, "adb --token abc123")],
        port_free=True,
    )
    return result.replace(**changes)


def make_finding(**changes: Any) -> Finding:
    """Return an error that was found in a log, with ``changes``."""
    return Finding("compile", "Expression expected", "app/page.jsx", 2, 13, 3, "3:8", "3:64").replace(
        **changes
    )


class StandIn:
    """A supervisor of canned answers; set ``error`` to have every method raise it."""

    def __init__(self) -> None:
        self.project = "/home/me/shop"
        self.notes: list[str] = []
        self.place: str | None = None
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.server = make_server()
        self.stops = [make_stop()]
        self.pages = [LogPage("one\ntwo\n", "3:8", truncated=False, reset=False, generation=3, ended=True)]
        self.unmanaged: list[Unmanaged] = []
        self.has_shown_locks = False
        self.servers = [self.server]

    def __call__(self) -> StandIn:
        """Stand in for the class, too."""
        return self

    def _asked(self, name: str, /, *args: Any, **options: Any) -> None:
        options.pop("on_progress", None)
        self.calls.append((name, args, options))
        if self.error is not None:
            raise self.error

    def start(self, *args: Any, **options: Any) -> StartResult:
        """Find the server running."""
        self._asked("start", *args, **options)
        return StartResult(self.server, reused=True, waited_ms=5, notes=["a note"])

    def restart(self, *args: Any, **options: Any) -> StartResult:
        """Say that it was run again."""
        self._asked("restart", *args, **options)
        return StartResult(self.server, reused=False, waited_ms=50, notes=[])

    def wait(self, *args: Any, **options: Any) -> StartResult:
        """Say that it is there, or gone."""
        self._asked("wait", *args, **options)
        server = self.server.replace(state=State.STOPPED) if options["gone"] else self.server
        return StartResult(server, reused=True, waited_ms=50, notes=[])

    def up(self, *args: Any, **options: Any) -> UpResults:
        """Say that they are up."""
        self._asked("up", *args, **options)
        return UpResults([UpResult("web", "reused", self.server, None)], [])

    def down(self, *args: Any, **options: Any) -> StopResults:
        """Say what was seen."""
        self._asked("down", *args, **options)
        return StopResults(self.stops, [])

    def config(self, *args: Any, **options: Any) -> ConfigResult:
        """Say where the port comes from."""
        self._asked("config", *args, **options)
        none = {"url": {"value": None, "source": "default"}}
        return ConfigResult({"web": {"port": {"value": 3000, "source": "file"}}}, none, [])

    def init(self, **options: Any) -> InitResult:
        """Say what would be written."""
        self._asked("init", **options)
        return InitResult("/home/me/shop/devsup.toml", "[apps.web]\n", written=options["write"], notes=[])

    def stop(self, *args: Any, **options: Any) -> StopResults:
        """Say what was seen."""
        self._asked("stop", *args, **options)
        return StopResults(self.stops, [])

    def adopt(self, *args: Any, **options: Any) -> StartResult:
        """Say that it is tracked."""
        self._asked("adopt", *args, **options)
        return StartResult(self.server, reused=False, waited_ms=5, notes=["it has no guard"])

    def hosts(self) -> HostList:
        """Show this host and a lost one."""
        self._asked("hosts")
        seen = "2026-01-02T03:04:05.678Z"
        return HostList(
            [HostSeen("box-a", 2, 0, seen, here=True), HostSeen("box-b", 0, 1, seen, here=False)], []
        )

    def pool(self, *args: Any, **options: Any) -> PoolList:
        """Show one that is in use, with what was acquired from it."""
        self._asked("pool", *args, **options)
        seen = "2026-01-02T03:04:05.678Z"
        held, free = PoolItem(3000, "ci", 7, seen), PoolItem("b c", None, None, None)
        pools = [PoolStatus("slots", [held, free]), PoolStatus("empty", [])]
        lease = Lease(3000, "ci", 7, seen, 30.0) if args[1] == "acquire" else None
        return PoolList("/home/me/.devsup", pools, lease, [])

    def ports(self) -> PortList:
        """Show one of ours and a stranger."""
        self._asked("ports")
        mine = PortUse(
            3000, "::", 4711, "next-server", "/home/me/shop", "0123456789ab", "dev_server_web",
            "/home/me/shop", mine=True,
        )  # fmt: skip
        other = mine.replace(port=3001, pid=None, server=None, session=None, project=None, mine=False)
        return PortList(
            [mine, other.replace(command=None, cwd=None)], ["`devsup start web` finds its server"]
        )

    def locks(self, **options: Any) -> LockList:
        """Show one that is held and waited for."""
        self._asked("locks", **options)
        if self.has_shown_locks:
            raise BrokenPipeError  # the reader of a watcher has gone
        self.has_shown_locks = True
        person = {"pid": 4711, "who": "thread MainThread", "mode": "write", "purpose": "start"}
        person |= {"since": "2026-01-02T03:04:05.678Z", "age_ms": 1500}
        times = {"avg": 0.5, "max": 2.0, "p95": 1.5}
        stats = {"acquisitions": 3, "failures": 1, "wait_ms": times, "hold_ms": times}
        lock = LockStatus("dev_server_web in /home/me/shop", "process", person, [person], [person] * 5, stats)
        idle = lock.replace(name="cache", kind="rw", holder=None, holders=[], waiters=[])
        return LockList([lock, idle], ["`cache` is contended"])

    def prune(self, **options: Any) -> PruneResult:
        """Remove one thing and leave another."""
        self._asked("prune", **options)
        log = Pruned("log", "/home/me/x.log", 4096, "it is old", done=not options["dry_run"])
        return PruneResult(
            [log, Pruned("orphan", "pid 7 (adb)", None, "its server has no row", done=False)], []
        )

    def why(self, *args: Any) -> Story:
        """Tell when it began."""
        self._asked("why", *args)
        entry = StoryEntry("2026-01-02T03:04:05.678Z", "started by tty as pid 4711", "event")
        return Story([entry, entry.replace(time=None, source="log")], "devsup check web", [])

    def metrics(self) -> Metrics:
        """Say one thing."""
        self._asked("metrics")
        return Metrics("# TYPE devsup_servers gauge\ndevsup_servers 1\n# EOF\n")

    def monitor(self, **options: Any) -> Iterator[MonitorRound]:
        """Find one thing, once."""
        self._asked("monitor", **{name: value for name, value in options.items() if name != "rest"})
        found = {"id": "server_dead:0", "message": "nobody", "project": "/home/me/shop", "session": None}
        yield MonitorRound([found], [], [found], [])
        if not options["once"]:
            raise BrokenPipeError  # the reader has gone

    def start_monitor(self, **options: Any) -> StartResult:
        """Find it running."""
        self._asked("start_monitor", **options)
        return StartResult(self.server, reused=True, waited_ms=5, notes=[])

    def doctor(self, **options: Any) -> Health:
        """Warn of two things."""
        self._asked("doctor", **options)
        dead = HealthFinding("server_dead:0123456789ab", "a row without processes", "devsup prune", safe=True)
        split = HealthFinding("port_split:3000", "port 3000 is two servers", "kill 4711", safe=False)
        parts = [HealthPart("servers", "warn", 1.5, [dead]), HealthPart("ports", "warn", 2.5, [split])]
        return Health([*parts, HealthPart("redis", "skipped", 0.0, [])], "warn", ["fixed it"])

    def list(self, **options: Any) -> ServerList:
        """Show the servers."""
        self._asked("list", **options)
        return ServerList(self.servers, self.unmanaged, [])

    def status(self, *args: Any) -> StatusResult:
        """Show one server."""
        self._asked("status", *args)
        processes = [{"pid": 4711, "ppid": 4710, "command": "node next dev"}]
        lease = {"state": "held", "token": "***", "fencing": 17, "expires_at": None, "renewed_at": None}
        return StatusResult(self.server, processes, lease, [])

    def url(self, *args: Any) -> dict[str, Any]:
        """Say where it listens."""
        self._asked("url", *args)
        return {"url": self.server.url, "port": self.server.port}

    def logs(self, *args: Any, **options: Any) -> LogPage:
        """Give the next page."""
        self._asked("logs", *args, **options)
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]

    def events(self, **options: Any) -> EventPage:
        """Give what happened, once."""
        self._asked("events", **{name: value for name, value in options.items() if name != "rest"})
        if "wait" in options:
            raise BrokenPipeError  # the reader of a follower has gone
        none: dict[str, Any] = dict.fromkeys(HistoryEntry._fields)
        told = {"seq": 7, "type": "started", "time": "2026-01-02T03:04:05.678Z", "session": "dev_server_web"}
        return EventPage([HistoryEntry(**(none | told))], 7)

    def check(self, *args: Any, **options: Any) -> CheckResult:
        """Say that it is well."""
        self._asked("check", *args, **options)
        http = {"path": options["path"], "status": 200, "ms": 12}
        return CheckResult(self.server, True, http, [], "3:99", "ok", [])

    def fails(self, error: DevsupError | BaseException) -> StandIn:
        """Have every method raise ``error``."""
        self.error = error
        return self


def documented_calls() -> list[list[str]]:
    """Return every call that a help text shows."""
    texts = [cli.app.info.epilog, *(command.epilog for command in cli.app.registered_commands)]
    shown = re.findall(
        r"^ +devsup ((?:\S| (?! ))+)",
        "\n".join(text for text in texts if isinstance(text, str)),
        re.MULTILINE,
    )
    assert len(shown) > 15, shown
    return [shlex.split(line) for line in shown]


#: Every flag in every way it may be written.
_LINES = """
start
start web --port 3000
start web --port=3000 --timeout=10 --no-wait
start --timeout 2.5 web
start web --restart always --idle-timeout=15m --ttl 2h
start --with-parent 4711 web
start --env A=1 --env B=2 --env C=a=b web
start web -C /tmp -v
start -C/tmp
start -- node server.js --port 3000 --json -- x
start api -- npm run dev
start api --port auto -- npm run dev
start web --owner ci
start --owner=ci web
stop --owner ci
stop --owner=ci --everywhere
stop web --take-over
stop box-b/web --fleet
stop web :3000 --fleet --timeout=5 --take-over --grace 1 --sweep
restart web --take-over
adopt 4711
ports
prune
prune --dry-run --orphans --grace 1
why web
why :3000
metrics
metrics --json
monitor --once
monitor --once --max-memory 100 --max-cpu=50
monitor --interval 5
start --monitor
start --monitor --timeout 3
doctor
doctor --fix
doctor --json --fix -C /tmp
adopt :3000 --name api --owner ci
-C /tmp --json start web
--json list
-v -C /tmp list
--directory=/tmp list
--verbose list
--version
--version --json
version
stop web
stop web mobile 4711 :3000
stop --all
stop --all --everywhere --sweep
stop web --grace 0
stop web --grace=0.5
stop -- web
list
ls
ps -a
list --all --everywhere
list --fleet
ls --fleet --json
hosts
hosts --json
pool
pool --here --json
pool slots
pool slots add a 7 'b c'
pool slots acquire --owner ci --ttl 5m
pool slots renew a --owner=ci --ttl=90 --fencing 7
pool slots free a --force -C /tmp
pool slots remove -- a
status web
status 4711
status :3000
logs web
logs web -n5
logs web -n 5
logs web --lines=5 --max-bytes 100
logs -n 5 web --after 3:120 --wait 0.5
logs web -f
logs web --follow -n 1
logs web --errors --after 3:8
logs web --grep=GET --since 10m --raw
logs -f web api
check web
check web --path=/api --after 3:1 --timeout 2
url web
url -- web
wait web
wait web --ready
wait web --gone
wait web --gone --timeout 1
restart web
restart web --timeout 10 --grace 1
events
events -f
events --follow --after 3
events --after=0 --limit 5 --everywhere
events -n5
up
up web mobile --timeout 5 --env A=1
down
down web --grace 1 --sweep --take-over
config
config web --port 3000 --env A=1
config --schema
init
init --force
init --print --json
open web
open web --print
locks
locks -a --watch
locks --all --json
locks -w
schema
schema stop
agent-guide
top
top --everywhere --interval 0.5
mcp
mcp -C /tmp
schema --json list
"""

#: Those, and what the help texts show.
EVERY_CALL: list[list[str]] = [
    list(call)
    for call in dict.fromkeys(
        tuple(call) for call in (*documented_calls(), *map(shlex.split, _LINES.split("\n")))
    )
    if call
]

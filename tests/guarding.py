"""
Guards of several hosts that share one Redis, each started as `start` does it, but without that.

A host is a state folder of its own with a name; the processes are all of this machine. Where a test must
change something in a guard, a module is changed in that guard's own process, and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from devsup import identity
from devsup.clock import boottime, now_ms
from devsup.fleet import holding, keys, listing, note, requests
from devsup.fleet.membership import ADDRESS, Membership, Mine
from devsup.fleet.requests import Stop
from devsup.guard import job as jobs
from devsup.guard.job import Job
from devsup.guard.spawn import ADOPT, LOOK, START, Hearing, spawn
from devsup.models import StopClaim
from devsup.paths import Home, ensure_home
from devsup.redis import leases
from devsup.redis.leases import Granted
from devsup.registry import Registry
from tests.registry_child import make_row
from tests.support import ROOT, processes_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from devsup.fleet.listing import Entry
    from devsup.models import Row
    from tests.support import Leftovers

__all__ = [
    "FLEET",
    "PLAIN",
    "SLOW",
    "STUBBORN",
    "UP",
    "Guarded",
    "Host",
    "ask",
    "asleep",
    "hear_of",
    "post",
    "send",
]

FLEET, PROJECT = "shop", "example.org/shop"
#: What the servers here print once they are as they should be.
UP = "print('up', flush=True)"
#: A server that ends when it is told to, one that takes half a second for that, and one that never does.
PLAIN = f"import signal\n{UP}\nsignal.pause()"
SLOW = f"""
import signal, time
def end(*_):
    time.sleep(0.5)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
{UP}
signal.pause()
"""
STUBBORN = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{UP}
while True:
    signal.pause()
"""
#: A guard in which something is changed: the interpreter runs it instead of the package's own file.
SHIM = """#!{python} -IS
import os, sys
sys.argv = sys.argv[3:]  # as of `python -I -S FILE`
sys.path.append({root!r})
from devsup.guard import __main__ as start
start.detach()
FOLDER = {folder!r}
{code}
from devsup.guard import beginning
sys.exit(beginning.main(sys.argv[1:]))
"""


def send(client: redis.Redis, command: Any) -> Any:
    """Send one command that `devsup.fleet` has made."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]  # the library has no types here


class Host:
    """One host: where its guards find Redis, and what they are to the fleet."""

    def __init__(self, name: str, folder: Path, url: str, leftovers: Leftovers) -> None:
        self.name = name
        self.url = url
        self.folder = folder / name
        self.folder.mkdir()
        self.home = Home(str(self.folder / "home"))
        ensure_home(self.home)
        leftovers.watch(self.folder / "home")
        self.registry = Registry(self.home, rebuild=list)

    def start(
        self,
        *command: str,
        client: redis.Redis | None = None,
        app: str = "web",
        ttl: float = 30.0,
        on_lost: str = "keep",
        owner: str | None = None,
        code: str = "",
        policy: dict[str, Any] | None = None,
        member: bool = True,
        port: int | None = None,
        runs: bool = True,
    ) -> Guarded:
        """
        Start a server (``command``, or Python code that is one word) and its guard; return once it runs.

        With ``client`` it is exclusive, and its lease is taken by that before. ``code`` changes the guard.
        Without ``runs`` it is to come to its end before that.
        """
        words = list(command) if len(command) > 1 else [sys.executable, "-IS", "-c", *(command or (PLAIN,))]
        id = uuid.uuid4().hex[:12]  # noqa: A001 - the record's word
        membership = Membership(FLEET, self.name, PROJECT, ttl, on_lost)
        if client is not None:
            membership = membership.replace(lease=self._acquire(client, app, id, ttl, owner))
        row = make_row(
            id, session=f"dev_server_{app}", project=str(self.folder), cwd=str(self.folder), kind="command",
            app=app, command=words, owner=owner, started_at=now_ms(), asked_port=port,
        )  # fmt: skip
        row = self.registry.reserve(
            row, dead=[], limit=99, port=None, log_of=lambda generation: self._log(row.session, generation)
        )
        own: dict[str, Any] = {
            "home": self.home.root, "executable": words[0], "port": port, "default_port": None,
            "probe": {} if port is not None else {"log": "^up$"},
            "policy": policy or {}, "fleet": membership.plain() if member else None,
        }  # fmt: skip
        job = Job(**{name: own[name] if name in own else getattr(row, name) for name in Job._fields})
        os.makedirs(os.path.dirname(row.log), mode=0o700, exist_ok=True)
        jobs.write(self.home.job(id), job)
        server = Guarded(self, row)
        with server.spawn(START, code) as hearing:
            assert hearing.wait("l", time.monotonic() + 30) is runs, self.log()
        return server

    def _log(self, session: str, generation: int) -> str:
        return self.home.log(str(self.folder), session, generation)

    def _acquire(self, client: redis.Redis, app: str, server: str, ttl: float, owner: str | None) -> Mine:
        since, token = boottime(), uuid.uuid4().hex
        info = holding.fields(
            self.name, holding.place(identity.here(), self.home.root), owner=owner, url=None, server=server,
            generation=1,
        )  # fmt: skip
        command = leases.acquire(keys.lease(FLEET, PROJECT, app), token, round(ttl * 1e3), info)
        answer = leases.answered(send(client, command))
        assert isinstance(answer, Granted), answer
        return Mine(app, token, answer.fencing, since)

    def log(self) -> str:
        """Return what the guards have written."""
        return "".join(path.read_text() for path in self.folder.glob("home/logs/*/*.guard.log"))

    def findings(self) -> list[tuple[str, bool]]:
        """Return what was found and what is over, oldest first: the kind and whether it is open."""
        details = [one.details or {} for one in self.registry.events() if one.type == "finding"]
        return [(str(one["id"]).partition(":")[0], bool(one["open"])) for one in details]

    def nobody_is_left(self) -> bool:
        """Tell whether no process of this host lives."""
        return processes_of(self.home.root) == []


class Guarded:
    """One server with its guard."""

    def __init__(self, host: Host, row: Row) -> None:
        self.host = host
        self.id = row.id
        self.generation = row.generation
        self.session = row.session
        self.app = row.app or ""
        self.keys = keys.lease(FLEET, PROJECT, self.app)

    def spawn(self, mode: str = ADOPT, code: str = "") -> Hearing:
        """Start a guard for it."""
        interpreter = sys.executable
        home = self.host.home
        row = self.row
        marker = f'{{"home":"{home.root}","project":"{row.project}","session":"{row.session}",'
        marker += f'"id":"{row.id}","generation":{row.generation}}}'
        environ = {**os.environ, "DEVSUP_MARKER": marker, ADDRESS: self.host.url}
        if code:
            shim = self.host.folder / f"guard-{self.id}"
            text = SHIM.format(python=interpreter, root=str(ROOT), folder=str(self.host.folder), code=code)
            shim.write_text(text)
            shim.chmod(0o700)
            sys.executable = str(shim)
        try:
            log = home.guard_log(row.project, row.session)
            return spawn(jobs.read(home.job(row.id)), environ, mode=mode, log=log)
        finally:
            sys.executable = interpreter

    @property
    def row(self) -> Row:
        """The row as it is now."""
        row = self.host.registry.row(self.id)
        assert row is not None
        return row

    @property
    def lives(self) -> bool:
        """Whether it is in the registry."""
        return self.host.registry.row(self.id) is not None

    @property
    def guard(self) -> int:
        """The pid of its guard."""
        guard = self.row.guard
        assert guard is not None
        return guard.pid

    @property
    def pid(self) -> int:
        """The pid of its first process."""
        leader = self.row.leader
        assert leader is not None
        return leader.pid

    def ended(self, timeout: float = 30.0) -> Row:
        """Wait for its end and return that from the history."""
        wait_until(lambda: not self.lives, timeout)
        return next(row for row in self.host.registry.ended(id=self.id) if row.generation >= self.generation)

    def stop(self) -> float:
        """Have its guard end it, and return how many seconds that took."""
        guard = self.row.guard
        assert guard is not None
        began = time.monotonic()
        identity.signal(guard, signal.SIGTERM)
        wait_until(lambda: identity.is_gone(guard), 30, pause=0.002)
        return time.monotonic() - began

    def restart(self, *, grace: float = 5.0) -> None:
        """Have its guard run it again, and wait until it does."""
        before = self.row.generation
        claim = StopClaim(identity.me(), now_ms(), "restart", grace, sweep=False)
        assert self.host.registry.claim_stop(self.id, before, claim) == claim
        os.kill(self.guard, LOOK)
        wait_until(lambda: self.row.generation > before and self.row.leader is not None, max(10.0, grace))
        self.generation = self.row.generation

    # -- in the fleet --------------------------------------------------------------------------------

    def entry(self, client: redis.Redis) -> Entry | None:
        """Return what the fleet's list says of it."""
        found = listing.entries(send(client, listing.read_all(FLEET)))
        return next((one for one in found if one.id == self.id), None)

    def lease(self, client: redis.Redis) -> dict[str, str]:
        """Return the lease of its app, whoever has it."""
        return leases.holder(send(client, leases.look(self.keys)))

    def fencing(self) -> int:
        """Return the number that its guard goes by."""
        return int(self.shown()["fencing"])

    def shown(self) -> dict[str, Any]:
        """Return its lease as `status` shows it."""
        shown = note.shown(self.host.home, self.id)
        assert shown is not None
        return shown

    @property
    def holds(self) -> bool:
        """Whether its guard says that it has its lease."""
        return bool(self.shown()["state"] == "held")

    def renewed(self) -> None:
        """Wait until its guard has renewed its lease once more."""
        before = self.shown()["renewed_at"]
        wait_until(lambda: self.shown()["renewed_at"] != before, 20)

    def published(self, client: redis.Redis, state: str = "starting") -> Entry:
        """Wait until the fleet's list has it in ``state``."""

        def found() -> Entry | None:
            entry = self.entry(client)
            return entry if entry is not None and entry.server["state"] == state else None

        entry = wait_until(found, 20)
        assert entry is not None
        return entry

    def renewed_on_the_list(self, client: redis.Redis) -> None:
        """Wait for another sign of life."""
        before = self.entry(client)

        def later() -> bool:
            now = self.entry(client)
            return before is not None and now is not None and now.seen_at > before.seen_at

        wait_until(later, 20)

    def take_over(self, client: redis.Redis, token: str = "elsewhere", ttl: float = 60.0) -> int:
        """Take its lease as a start on another host does, and return the number."""
        info = holding.fields("oak", "p", owner=None, url=None, server="z", generation=1)
        answer = leases.answered(send(client, leases.acquire(self.keys, token, round(ttl * 1e3), info)))
        assert isinstance(answer, Granted), answer
        return answer.fencing


def ask(client: redis.Redis, server: Guarded, timeout: float = 20.0, **changes: Any) -> dict[str, Any] | None:
    """Ask for the end of ``server`` as another host does, and return the answer."""
    return hear_of(client, post(client, server, timeout, **changes), timeout)


def post(client: redis.Redis, server: Guarded, timeout: float = 20.0, **changes: Any) -> Stop:
    """Ask for the end of ``server``, and do not wait."""
    stop = Stop(
        uuid.uuid4().hex[:8], server.id, server.generation, "oak, pid 7", "script", may_take=False,
        grace=None, sweep=False,
    ).replace(**changes)  # fmt: skip
    send(client, requests.post(FLEET, stop, timeout))
    return stop


def hear_of(client: redis.Redis, stop: Stop, timeout: float = 20.0) -> dict[str, Any] | None:
    """Wait for the answer to ``stop`` and return it."""
    return requests.read_answer(send(client, requests.wait_for_answer(FLEET, stop, timeout)))


@contextmanager
def asleep(server: Guarded) -> Iterator[None]:
    """Let the guard of ``server`` sleep (SIGSTOP) within the context."""
    guard = server.guard
    os.kill(guard, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(guard, signal.SIGCONT)

"""
Several devsup processes at once: natural races by a gun, forced ones by a gate at one step of one of them.

A `World` is one home and one project. What it starts cannot outlive it. Real processes do the racing; the
test's own process only looks, and does so through the API.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from devsup import Supervisor, identity
from devsup.models import State
from devsup.paths import Home
from devsup.registry import Registry
from tests.support import ROOT, SERVERS, Found, clean_environment, end_all, free_port, processes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from devsup.models import Server, StartResult

__all__ = ["PATIENCE", "Caller", "Command", "Gate", "Racer", "World", "counted", "settle", "web"]

#: How long anything may take on two busy cores before a test gives up on it.
PATIENCE = 60.0

_RACER = """
import json, sys, traceback
from enum import Enum
from devsup import Supervisor
from devsup.errors import DevsupError
from devsup.records import Record

def plain(value):
    if isinstance(value, Record):
        return plain(value.asdict())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value

project, home = sys.argv[1:]
supervisor = Supervisor(project, home)
print("ready", flush=True)
for line in sys.stdin:
    call = json.loads(line)
    try:
        result = getattr(supervisor, call["verb"])(*call["args"], **call["kwargs"])
        answer = {"ok": True, "data": plain(result)}
    except DevsupError as error:
        answer = {"ok": False, "code": error.code, "message": error.message, "details": plain(error.details)}
    except BaseException:
        answer = {"ok": False, "code": "traceback", "message": traceback.format_exc(), "details": {}}
    print(json.dumps(answer), flush=True)
"""


def web(*flags: object) -> list[str]:
    """Return the command of a stand-in server that is up in some 40 ms."""
    return [sys.executable, "-SE", str(SERVERS / "web.py"), *map(str, flags)]


def counted(path: Path, command: Sequence[str]) -> list[str]:
    """Return a command that first adds its pid to the file ``path``, then becomes ``command``."""
    code = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)\n"
        "os.write(fd, b'%d\\n' % os.getpid())\n"
        "os.close(fd)\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    return [sys.executable, "-SE", "-c", code, str(path), *command]


class Caller(NamedTuple):
    """What a devsup command said."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON document of it."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    @property
    def data(self) -> Any:
        """The data of a command that must have gone well."""
        assert self.code == 0, self
        return self.answer["data"]

    @property
    def error(self) -> str:
        """The error code of a command that must have failed; "killed" where SIGKILL ended it."""
        if self.code == -signal.SIGKILL:
            return "killed"
        assert self.code != 0, self
        return str(self.answer["error"]["code"])

    def __str__(self) -> str:
        if self.code == -signal.SIGKILL:
            return "killed"
        try:
            document = json.loads(self.out)
        except ValueError:
            return f"exit {self.code}"
        return "ok" if document["ok"] else f"{document['error']['code']} ({self.code})"


class Command:
    """A devsup command on its way."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def end(self, timeout: float = PATIENCE) -> Caller:
        """Wait for its end and return what it said."""
        out, err = self.child.communicate(timeout=timeout)
        return Caller(self.child.returncode, out, err)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.child.kill()
        self.child.wait(PATIENCE)


class Gate:
    """A step at which a process waits until it is let on."""

    def __init__(self, folder: Path, role: str, step: str, nth: int = 1) -> None:
        self._path = folder / f"gate-{len(list(folder.glob('gate-*.go')))}"
        self.plan = {"role": role, "step": step, "nth": nth, "do": "pause", "path": str(self._path)}
        self._name = f"{role}: {step} ({nth})"
        for end in ("reached", "go"):
            os.mkfifo(f"{self._path}.{end}")
        # Open at both ends, so that neither side waits for the other to open it.
        self._reached = os.open(f"{self._path}.reached", os.O_RDWR | os.O_NONBLOCK)
        self._go = os.open(f"{self._path}.go", os.O_RDWR | os.O_NONBLOCK)

    def reached(self, timeout: float = PATIENCE) -> None:
        """Wait until the process is there."""
        readable, _, _ = select.select([self._reached], [], [], timeout)
        assert readable, f"nobody came to `{self._name}`"
        os.read(self._reached, 1)

    def go(self) -> None:
        """Let it on; also before it is there."""
        os.write(self._go, b".")

    def close(self) -> None:
        """Let everybody on."""
        for fd in (self._reached, self._go):
            os.close(fd)


class Racer:
    """A process that has loaded devsup and calls its API when told to, as often as told to."""

    def __init__(self, world: World) -> None:
        self._child = world.keep(
            subprocess.Popen(
                [sys.executable, "-c", _RACER, str(world.project), str(world.home)],
                cwd=world.project,
                env=world.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.pid = self._child.pid

    def ready(self) -> Racer:
        """Wait until it is loaded."""
        assert self._line() == "ready\n"
        return self

    def call(self, verb: str, *args: object, **kwargs: object) -> None:
        """Have it call a method of `Supervisor` now."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"verb": verb, "args": args, "kwargs": kwargs}) + "\n")
        self._child.stdin.flush()

    def answer(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return what came of its call: ``{"ok", "data"}`` or ``{"ok", "code", "message", "details"}``."""
        answer = json.loads(self._line(timeout))
        assert isinstance(answer, dict)
        assert answer.get("code") not in {"traceback", "internal"}, answer["message"]
        return answer

    def has_answered(self) -> bool:
        """Tell whether `answer` would not have to wait."""
        assert self._child.stdout is not None
        return bool(select.select([self._child.stdout], [], [], 0)[0])

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._child.kill()
        self._child.wait(PATIENCE)

    def _line(self, timeout: float = PATIENCE) -> str:
        assert self._child.stdout is not None
        readable, _, _ = select.select([self._child.stdout], [], [], timeout)
        assert readable, "no answer"
        return self._child.stdout.readline()


class World:
    """One home and one project. Its app is `web`, on a port of its own; others may be added."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.project = folder / "project"
        self.project.mkdir(exist_ok=True)
        (self.project / "devsup.toml").touch()
        self.port = free_port() if port is None else port
        self.command = web()
        self.environment = clean_environment(os.environ, self.home)
        self.registry = Registry(Home(str(self.home)))
        self._children: list[subprocess.Popen[str]] = []
        self._gates: list[Gate] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        end_all(self.processes)
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """End the commands and racers of this world; its servers are another matter."""
        for child in self._children:
            child.kill()
            child.wait(PATIENCE)
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        for gate in self._gates:
            gate.close()

    def keep(self, child: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Have ``child`` ended with this world."""
        self._children.append(child)
        return child

    # -- what is done --------------------------------------------------------------------------------

    @property
    def devsup(self) -> Supervisor:
        """The API on this world, from the test's own process."""
        return Supervisor(str(self.project), str(self.home))

    def start(self, name: str = "web", *, port: int | None = None, timeout: float = 30) -> StartResult:
        """Start an app through the API."""
        port = self.port if port is None else port
        return self.devsup.start(
            name, command=self.command, port=port, timeout=timeout, environ=self.environment
        )

    def arguments(self, verb: str, *flags: object) -> list[str]:
        """Return the command line of ``verb`` for the app."""
        command = ["--port", str(self.port), "--", *self.command] if verb == "start" else []
        timeout = ["--timeout", "30"] if verb in ("start", "restart") and "--timeout" not in flags else []
        target = [] if verb == "list" or "--all" in flags else ["web"]
        return [verb, *target, "--json", *timeout, *map(str, flags), *command]

    def begin(self, verb: str, *flags: object, plan: Sequence[dict[str, Any]] = ()) -> Command:
        """Begin a devsup command on the app; it carries out ``plan``, and so does a guard that it starts."""
        return self.begin_with(self.arguments(verb, *flags), plan=plan)

    def begin_with(
        self, arguments: Sequence[str], *, plan: Sequence[dict[str, Any]] = (), group: bool = False
    ) -> Command:
        """Begin a devsup command with ``arguments``; in a ``group`` of its own, as a terminal does."""
        environment = self.environment | {"STEPS": json.dumps(list(plan))}
        if any(one["role"] != "command" for one in plan):
            environment["STEPS_SHIM"] = str(self._shim())
        child = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "stepped.py"), *arguments],
            cwd=self.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0 if group else None,
        )
        return Command(self.keep(child))

    def drive(self, verb: str, plan: Sequence[dict[str, Any]] = ()) -> Caller:
        """Run a devsup command on the app to its end."""
        return self.begin(verb, plan=plan).end()

    def gate(self, role: str, step: str, nth: int = 1) -> Gate:
        """Return a gate at a step; give its plan to the command."""
        gate = Gate(self.folder, role, step, nth)
        self._gates.append(gate)
        return gate

    def racers(self, count: int) -> list[Racer]:
        """Return processes that wait for their call."""
        racers = [Racer(self) for _ in range(count)]
        return [racer.ready() for racer in racers]

    def _shim(self) -> Path:
        """Return a file that can be executed in the place of the interpreter, for guards."""
        path, script = self.folder / "python", ROOT / "tests" / "stepped.py"
        if not path.exists():
            path.write_text(
                f"#!{sys.executable} -IS\n"
                f"import sys\nsys.argv[0] = file = {str(script)!r}\n"
                "exec(compile(open(file).read(), file, 'exec'), {'__name__': '__main__', '__file__': file})\n"
            )
            path.chmod(0o700)
        return path

    def kill_guard(self) -> None:
        """Kill the guard of the one server, and see that it is gone for everybody."""
        (row,) = self.registry.rows()
        assert row.guard is not None
        os.kill(row.guard.pid, signal.SIGKILL)
        # A dying process has no environment any more, by which `guards` finds it, before it counts as dead.
        deadline = time.monotonic() + PATIENCE
        while not identity.is_gone(row.guard):
            assert time.monotonic() < deadline
            select.select([], [], [], 0.005)

    # -- what is true --------------------------------------------------------------------------------

    def processes(self) -> list[Found]:
        """Return every living process of this world but its commands and racers."""
        own = {child.pid for child in self._children}
        return [one for one in processes_of(self.home) if one.pid not in own]

    def servers(self) -> set[int]:
        """Return the pids of the living servers: what has executed its command."""
        return {one.pid for one in self.processes() if str(SERVERS) in one.command and not _is_guard(one)}

    def guards(self) -> set[int]:
        """Return the pids of the living guards (and of what has forked from one and not yet executed)."""
        return {one.pid for one in self.processes() if _is_guard(one)}

    def list(self) -> list[Server]:
        """Return what `list` shows."""
        return self.devsup.list().servers

    def is_settled(self) -> bool:
        """Tell whether no guard is on its way to or from a row, and none has anything to do."""
        guarded = [row for row in self.registry.rows() if not identity.is_gone(row.guard)]
        if self.guards() != {row.guard.pid for row in guarded if row.guard is not None}:
            return False
        return not any(row.state in (State.STARTING, State.RESTARTING, State.STOPPING) for row in guarded)


def _is_guard(one: Found) -> bool:
    return "devsup/guard/__main__.py" in one.command


def settle(world: World, timeout: float = PATIENCE) -> bool:
    """Wait until ``world`` is settled; tell whether it is."""
    deadline = time.monotonic() + timeout
    while not world.is_settled():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True

"""
Servers under the real `devsup`, in one test's project: start them, look at their processes, prove them gone.

Nothing here asks devsup whether something is gone: processes are found by their environment, ports by
connecting. For the main thread of one test at a time.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from devsup.models import ENDED_STATES, State
from devsup.paths import Home
from devsup.registry import Registry
from tests.support import (
    COMMAND_TIMEOUT,
    SERVERS,
    Answer,
    fetch,
    is_listening,
    processes_of,
    server_argv,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devsup.models import Row
    from tests.support import Devsup

__all__ = [
    "CLEAN",
    "GOING",
    "LINUX_ONLY",
    "Servers",
    "alive",
    "ended_by_kill",
    "ended_by_term",
    "expo_app",
    "has_terminal",
    "next_app",
    "pid_at",
    "process",
    "script",
    "seen",
]

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


CLEAN = {
    "outcome": "stopped",
    "signals": ["SIGTERM"],
    "escalated": False,
    "survivors": [],
    "left_running": [],
    "port_free": True,
}

#: A server whose child listens; it lives on without, and listens itself once there is a file `again`.
GOING = """
import os
from stand_in import listen, obey, pause, serve, wanted_port
obey()
if os.fork() == 0:
    serve(listen(wanted_port()))
while not os.path.exists("again"):
    pause(0.01)
serve(listen(wanted_port()))
"""


class Servers:
    """devsup in the project of one test. Server records are the JSON of its answers."""

    def __init__(self, devsup: Devsup, home: Path, project: Path) -> None:
        self.devsup = devsup
        self.home = home
        self.project = project

    def start(
        self,
        name: str,
        *command: object,
        port: int | None = None,
        flags: Sequence[object] = (),
        env: Mapping[str, str | None] | None = None,
    ) -> dict[str, Any]:
        """Return the server of a start that must go well."""
        server: dict[str, Any] = self.try_start(name, *command, port=port, flags=flags, env=env).data[
            "server"
        ]
        return server

    def try_start(
        self,
        name: str,
        *command: object,
        port: int | None = None,
        flags: Sequence[object] = (),
        env: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Run `devsup start NAME [--port N] [-- COMMAND]` and return its answer, whatever it is."""
        return self.devsup(*self.start_args(name, *command, port=port, flags=flags), env=env)

    def failed(self, name: str, *command: object, port: int | None = None) -> dict[str, Any]:
        """Start a server that ends before it is ready, and return the details of the error."""
        answer = self.try_start(name, *command, port=port)
        assert (answer.code, answer.error["code"]) == (5, "exited_early"), answer
        details = answer.error["details"]
        assert isinstance(details, dict)
        return details

    def start_args(
        self, name: str, *command: object, port: int | None = None, flags: Sequence[object] = ()
    ) -> list[object]:
        """Return the arguments of that call, for tests that run it in their own way."""
        given = ["--port", port] if port is not None else []
        return ["start", name, "--json", *given, *flags, *(["--", *command] if command else [])]

    def stand_in(
        self,
        name: str,
        stand_in: str,
        *args: object,
        port: int | None = None,
        flags: Sequence[object] = (),
    ) -> dict[str, Any]:
        """Start the stand-in server of that name, which must come up."""
        return self.start(name, *server_argv(stand_in, *args), port=port, flags=flags)

    def stop(
        self, target: object, *flags: object, env: Mapping[str, str | None] | None = None
    ) -> dict[str, Any]:
        """Stop one server, which must go well, and return the result."""
        (result,) = self.devsup("stop", target, *flags, "--json", env=env).data["results"]
        assert isinstance(result, dict)
        return result

    def listed(self, *flags: object) -> list[dict[str, Any]]:
        """Return what `devsup list` shows."""
        servers = self.devsup("list", *flags, "--json").data["servers"]
        assert isinstance(servers, list)
        return servers

    def find(self, target: object) -> dict[str, Any]:
        """Return one server, running or ended."""
        server = self.devsup("status", target, "--json").data["server"]
        assert isinstance(server, dict)
        return server

    def state_becomes(self, target: object, state: str, timeout: float = 15.0) -> dict[str, Any]:
        """Wait until a server is in ``state`` and return it."""

        def found() -> dict[str, Any] | None:
            # Ends are written down, and a look at the registry costs next to nothing; only then a command is
            # asked. Whether somebody serves is seen by who looks.
            if State(state) in ENDED_STATES and state not in self._states(target):
                return None
            server = self.find(target)
            return server if server["state"] == state else None

        found_one = wait_until(found, timeout)
        assert found_one is not None
        return found_one

    def _states(self, name: object) -> set[str]:
        registry = Registry(Home(str(self.home)))
        rows = [*registry.rows(), *registry.ended(session=f"dev_server_{name}")]
        return {row.state.value for row in rows if row.app == name}

    def members(self, target: object) -> list[psutil.Process]:
        """Return the processes of a server's tree, as `devsup status` names them."""
        rows = self.devsup("status", target, "--json").data["processes"]
        return [psutil.Process(row["pid"]) for row in rows]

    def log(self, server: Mapping[str, Any]) -> str:
        """Return what a server has printed."""
        return Path(server["log"]).read_text(errors="replace")

    def rows(self) -> list[Row]:
        """Return what the registry holds."""
        return Registry(Home(str(self.home))).rows()

    def run(self, *command: object) -> Answer:
        """Run a program in the project that answers as devsup does."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        return Answer(tuple(words), done.returncode, done.stdout, done.stderr)

    @staticmethod
    def answer(child: subprocess.Popen[str], out: str, err: str) -> Answer:
        """Return what a `devsup` that was started by `devsup_popen` has said."""
        assert isinstance(child.args, list)
        return Answer(tuple(map(str, child.args)), child.returncode, out, err)

    def guard_log(self) -> str:
        """Return what the guards of this test have written."""
        return "".join(path.read_text() for path in self.home.glob("logs/*/*.guard.log"))

    def events(self, server: Mapping[str, Any]) -> list[str]:
        """Return the types of the events of one server, oldest first."""
        events = Registry(Home(str(self.home))).events()
        return [event.type for event in events if event.server == server["id"]]

    def nothing_is_left(self, *ports: int | None) -> None:
        """Fail unless no process of this home lives, the ``ports`` are free and nothing is listed."""
        assert processes_of(self.home) == []
        self._forgotten(*ports)

    def nothing_stays(self, *ports: int | None) -> None:
        """Fail as `nothing_is_left`, but wait for what ends by itself: Next's flush, a guard on its way."""
        wait_until(lambda: processes_of(self.home) == [], 5)
        self._forgotten(*ports)

    def _forgotten(self, *ports: int | None) -> None:
        for port in ports:
            assert port is not None
            assert not is_listening(port)
            assert not is_listening(port, "::1")
        # What `devsup list` shows, without the price of a process.
        assert self.rows() == []


def seen(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a stop saw, as far as it is the same every time."""
    return {name: result[name] for name in CLEAN}


def ended_by_term(result: dict[str, Any]) -> None:
    """Fail unless SIGTERM was enough, at once, and nothing is left."""
    assert seen(result) == CLEAN
    # Less than the grace: else it may be a second attempt that tells of itself alone.
    assert result["ms"] < 5_000


def ended_by_kill(result: dict[str, Any]) -> None:
    """Fail unless the end came by SIGKILL, after a grace of 0.3 s, and nothing is left."""
    assert seen(result) == {**CLEAN, "signals": ["SIGTERM", "SIGKILL"], "escalated": True}
    assert 300 <= result["ms"] < 5_000


def alive(process: psutil.Process) -> bool:
    """Tell whether exactly this process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def has_terminal(pid: int) -> bool:
    """Tell whether a process has a controlling terminal; psutil knows no terminal that is new."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return stat.rpartition(")")[2].split()[4] != "0"


def process(pid: int | None) -> psutil.Process:
    """Return the process that has ``pid`` now."""
    assert pid is not None
    return psutil.Process(pid)


def pid_at(url: str | int | None) -> int:
    """Return the pid that a stand-in server at ``url`` (or local port) tells of itself."""
    assert url is not None
    status, body = fetch(f"http://localhost:{url}" if isinstance(url, int) else url)
    assert status == 200, body
    found = re.match(r"pid (\d+)", body)
    assert found, body
    return int(found[1])


def script(folder: Path, name: str, code: str) -> list[str]:
    """Write a Python program that can import `stand_in`, and return the command that runs it."""
    path = folder / f"{name}.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(SERVERS)!r})\n{code}")
    return [sys.executable, str(path)]


def next_app(project: Path, *command: object) -> None:
    """Make ``project`` a Next.js app whose installed `next` runs ``command`` and its own arguments."""
    _app(project, "next", "dev", {"dev": "next dev"}, command)


def expo_app(project: Path, *command: object) -> None:
    """Make ``project`` an Expo app whose installed `expo` runs ``command`` and its own arguments."""
    _app(project, "expo", "start", {"start": "expo start"}, command)


def _app(
    project: Path, program: str, verb: str, scripts: Mapping[str, str], command: Sequence[object]
) -> None:
    package = {"name": "app", "private": True, "scripts": scripts, "dependencies": {program: "*"}}
    (project / "package.json").write_text(json.dumps(package))
    shim = project / "node_modules" / ".bin" / program
    shim.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    # Executing once more keeps the pid, as Node's own launcher does.
    shim.write_text(
        f"#!{sys.executable} -IS\n"
        "import os, sys\n"
        f"assert sys.argv[1] == {verb!r}, sys.argv\n"
        f"os.execv({words[0]!r}, [*{words!r}, *sys.argv[2:]])\n"
    )
    os.chmod(shim, shim.stat().st_mode | stat.S_IXUSR)

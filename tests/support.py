"""
What the tests are made of: a home and a project of their own, real processes that cannot leak, free ports.

Processes are found by the environment they were started with and told apart by pid and start time; nothing is
ever signalled by its name. The helpers are used from the main thread of one test at a time; several test runs
may go on beside each other on one machine.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "AGENT_VARIABLES",
    "APPS",
    "ROOT",
    "SERVERS",
    "Answer",
    "Devsup",
    "DevsupPopen",
    "Found",
    "Leftovers",
    "RealApp",
    "Spawn",
    "StandIn",
    "clean_environment",
    "copy_app",
    "devsup_argv",
    "end",
    "end_all",
    "fetch",
    "free_port",
    "hear",
    "is_listening",
    "link_file",
    "node_is_missing",
    "processes_of",
    "run_devsup",
    "say",
    "server_argv",
    "wait_until",
    "with_changes",
]

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / "tests" / "servers"

#: The real apps: name -> folder. Tests work on copies (fixture `real_app`).
APPS = {
    "web": ROOT / "examples" / "web",
    "mobile": ROOT / "examples" / "mobile",
    "next15": ROOT / "tests" / "fixtures" / "next15",
}

#: Variables of a caller that change what devsup or a server does; a test that wants one sets it.
AGENT_VARIABLES = (
    "AGENT",
    "AI_AGENT",
    "BROWSER",
    "CI",
    "CLAUDECODE",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLICOLOR_FORCE",
    "CODEX_SANDBOX",
    "COLUMNS",
    "CURSOR_AGENT",
    "CURSOR_TRACE_ID",
    "FORCE_COLOR",
    "GEMINI_CLI",
    "HOST",
    "HOSTNAME",
    "LINES",
    "NODE_ENV",
    "NODE_OPTIONS",
    "NO_COLOR",
    "OPENCODE",
    "PORT",
    "RCT_METRO_PORT",
    "REPLIT_AGENT",
)

#: How long a command may take on two busy cores before a test gives up on it.
COMMAND_TIMEOUT = 120.0


# -- environment -----------------------------------------------------------------------------------


def clean_environment(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return ``environ`` as a plain shell's: this home, nobody's agent variables, quiet Node tools."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in AGENT_VARIABLES and not name.startswith(("DEVSUP_", "npm_", "INIT_CWD"))
    }
    return kept | {
        "DEVSUP_HOME": str(home),
        "EXPO_NO_TELEMETRY": "1",
        "EXPO_OFFLINE": "1",
        "EXPO_UNSTABLE_HEADLESS": "1",  # no mDNS socket, no DevTools download
        "NEXT_TELEMETRY_DISABLED": "1",
        "NO_UPDATE_NOTIFIER": "1",
    }


# -- processes -------------------------------------------------------------------------------------


class Spawn(Protocol):
    """Start Python code in a process that cannot outlive the test; its three pipes are text."""

    def __call__(
        self, code: str, *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """Run ``code`` with ``args`` as ``sys.argv[1:]``; ``env`` is added to the test's environment."""


def hear(child: subprocess.Popen[str]) -> str:
    """Return the next line that ``child`` prints; "" once it has closed its output."""
    assert child.stdout is not None
    return child.stdout.readline()


def say(child: subprocess.Popen[str], text: str = "go\n") -> None:
    """Write ``text`` to the standard input of ``child``."""
    assert child.stdin is not None
    child.stdin.write(text)
    child.stdin.flush()


class StandIn(Protocol):
    """Start a stand-in server that devsup knows nothing of; whatever it leaves is ended with the test."""

    def __call__(
        self, name: str, *args: object, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[bytes]:
        """Run tests/servers/NAME.py in its own session; it prints into `NAME.log` beside the project."""


class RealApp(Protocol):
    """Give a private copy of a real app, with its packages, as a project of its own."""

    def __call__(self, name: str) -> Path:
        """Return the folder of the copy of ``name``: `web`, `mobile` or `next15`."""


class Found(NamedTuple):
    """A living process: its pid, its start time (so that a reused pid is another process) and its command."""

    pid: int
    started: float
    command: str


def _describe(process: psutil.Process) -> Found | None:
    try:
        if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
            return None
        return Found(process.pid, process.create_time(), " ".join(process.cmdline()) or process.name())
    except (psutil.Error, OSError):
        return None


def _environment_bytes(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        if os.path.isdir("/proc/self"):
            return b""
    try:
        return "\0".join(f"{key}={value}" for key, value in psutil.Process(pid).environ().items()).encode()
    except (psutil.Error, OSError):
        return b""


def processes_of(home: Path | str) -> list[Found]:
    """
    Return every other living process whose environment names ``home``: guards, servers, helpers.

    Any text that stands in no other environment will do for a home.
    """
    needle, found = os.fsencode(str(home)), []
    for pid in psutil.pids():
        if pid != os.getpid() and needle in _environment_bytes(pid):
            try:
                process = _describe(psutil.Process(pid))
            except psutil.Error:
                continue
            if process is not None:
                found.append(process)
    return found


def end(process: Found) -> None:
    """Kill exactly ``process``: nothing happens where its pid is gone or somebody else's."""
    try:
        handle = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1
    except OSError:
        return
    try:
        # Looked at again with the handle open: from here on the pid cannot become another process's.
        if psutil.Process(process.pid).create_time() != process.started:
            return
        if handle >= 0:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
    except (psutil.Error, ProcessLookupError):
        pass
    finally:
        if handle >= 0:
            os.close(handle)


class Leftovers:
    """
    The homes of one test, and what still runs in them when it ends.

    Invariant, kept by ``finish`` alone: after it nothing of any home is alive, whatever the test did.
    """

    #: A server's own helpers may outlive a clean stop by this much. Next's telemetry flush takes 0.2 to 0.7 s
    #: of two idle cores; what a stop has forgotten stays for good.
    TOLERANCE = 10.0

    def __init__(self) -> None:
        self.expected = False
        self.homes: list[Path] = []

    def watch(self, home: Path) -> None:
        """Look into ``home`` too when the test ends."""
        self.homes.append(home)

    def find(self) -> list[Found]:
        """Return what is alive now."""
        return [process for home in self.homes for process in processes_of(home)]

    def finish(self) -> list[Found]:
        """End what is left and return it; what goes by itself at once does not count."""
        left = self.find()
        if left and not self.expected:
            deadline = time.monotonic() + self.TOLERANCE
            while left and time.monotonic() < deadline:
                time.sleep(0.02)
                left = self.find()
        if left:
            end_all(self.find)
        return left


def end_all(find: Callable[[], list[Found]]) -> None:
    """Kill what ``find`` returns until it returns nothing: a guard that saw its server die may start more."""
    deadline = time.monotonic() + 10
    while remaining := find():
        if time.monotonic() > deadline:
            raise AssertionError(f"processes that SIGKILL does not end: {remaining}")
        for process in remaining:
            end(process)
        time.sleep(0.01)


# -- devsup ----------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a devsup command said and how it ended."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        try:
            document = json.loads(self.out)
        except ValueError as error:
            raise AssertionError(f"no JSON from {self}") from error
        assert isinstance(document, dict), self
        return document

    @property
    def data(self) -> Any:
        """The `data` of a call that must have gone well."""
        assert self.code == 0, self
        assert self.json["ok"] is True, self
        return self.json["data"]

    @property
    def error(self) -> dict[str, Any]:
        """The `error` of a call that must have failed."""
        assert self.code != 0, self
        error = self.json["error"]
        assert isinstance(error, dict), self
        return error

    @property
    def notes(self) -> list[str]:
        """The `notes`, there on success and failure alike."""
        notes = self.json["notes"]
        assert isinstance(notes, list), self
        return notes


class Devsup(Protocol):
    """Run one devsup command to its end, in the test's home and project."""

    def __call__(
        self,
        *args: object,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002 - the word that subprocess.run uses
        timeout: float = COMMAND_TIMEOUT,
    ) -> Answer:
        """Return the answer; ``env`` is laid over the test's environment, None takes a variable away."""


class DevsupPopen(Protocol):
    """Start one devsup command and do not wait; it cannot outlive the test."""

    def __call__(
        self, *args: object, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[str]:
        """Return the process with pipes for text; read it with `communicate`."""


def devsup_argv(*args: object) -> list[str]:
    """Return the command line of devsup under this interpreter."""
    return [sys.executable, "-m", "devsup", *map(str, args)]


def with_changes(env: Mapping[str, str | None] | None) -> dict[str, str]:
    """Return the test's environment with ``env`` laid over it."""
    changed: dict[str, str | None] = {**os.environ, **(env or {})}
    return {name: value for name, value in changed.items() if value is not None}


def run_devsup(
    *args: object,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    input: str | None = None,  # noqa: A002 - the word that subprocess.run uses
    timeout: float = COMMAND_TIMEOUT,
) -> Answer:
    """
    Run devsup and return its answer.

    It reads pipes to their end, as an agent's shell tool does: a server that inherited them makes this fail
    by its timeout.
    """
    done = subprocess.run(
        devsup_argv(*args),
        cwd=cwd,
        env=with_changes(env),
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Answer(tuple(map(str, args)), done.returncode, done.stdout, done.stderr)


# -- waiting, ports, HTTP --------------------------------------------------------------------------


def wait_until(condition: Callable[[], T], timeout: float = 10.0, *, pause: float = 0.01) -> T:
    """Return the first truthy value of ``condition``; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{condition} was still {value!r} after {timeout} s")
        time.sleep(pause)
    return value


#: Locks of the ports this process gave out; the kernel frees them when it ends.
_ports: dict[int, IO[bytes]] = {}
#: Below every usual ephemeral range, so no outgoing connection takes one; above the defaults of servers.
_PORTS = range(20000, 32000)
# Not the module's own generator: pytest-randomly seeds that one, and every test would ask for the same port.
_random = random.SystemRandom()


def free_port() -> int:
    """
    Return a port on which nothing listens, and which no other test process is given while this one lives.

    The promise between processes is a file lock per port, so parallel workers and parallel runs get along.
    """
    folder = Path(tempfile.gettempdir()) / f"devsup-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for _ in range(2000):
        port = _random.choice(_PORTS)
        if port in _ports:
            continue
        lock = (folder / str(port)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if not _can_bind(port):
            lock.close()
            continue
        _ports[port] = lock
        return port
    raise AssertionError("no free port found")


@atexit.register
def _give_ports_back() -> None:
    for lock in _ports.values():
        lock.close()


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
        if probe.family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether somebody accepts connections on ``port``."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def fetch(url: str, timeout: float = 10.0) -> tuple[int, str]:
    """Return status and body of ``url``, whatever the status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def server_argv(name: str, *args: object) -> list[str]:
    """Return the command line of the stand-in server ``name`` of tests/servers."""
    script = SERVERS / f"{name}.py"
    assert script.is_file(), f"no stand-in server {name}"
    return [sys.executable, str(script), *map(str, args)]


# -- real apps -------------------------------------------------------------------------------------


def node_is_missing() -> str | None:
    """Return why tests on real apps cannot run here, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node.js is not installed"
    # Written by `make` when an installation is complete.
    lacking = [
        str(app.relative_to(ROOT)) for app in APPS.values() if not (app / "node_modules/.installed").exists()
    ]
    return f"not installed: {', '.join(lacking)} (`make node-apps`)" if lacking else None


def copy_app(name: str, parent: Path) -> Path:
    """
    Copy the app ``name`` into ``parent`` as a project of its own and return its folder.

    Packages are linked file by file, not by one link to the folder: Turbopack refuses packages that lie
    outside its root. Half a second for ten thousand files, where the file system can link.
    """
    target = parent / name
    source = APPS[name]
    shutil.copytree(
        source, target, symlinks=True, ignore=shutil.ignore_patterns("node_modules", ".next", ".expo")
    )
    shutil.copytree(source / "node_modules", target / "node_modules", symlinks=True, copy_function=link_file)
    (target / "devsup.toml").touch()
    return target


def link_file(source: str, destination: str) -> None:
    """Give a file a second name, or copy it where the file system cannot do that."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)

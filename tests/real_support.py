"""
Real Next.js and Expo under the real `devsup`: what their tests share.

For one test at a time, like `tests.serving`, whose helper it extends. Waits are bounded by what two busy
cores need, not by what an idle machine does: a cold start of a second may take twenty there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.serving import Servers, alive
from tests.support import (
    APPS,
    ROOT,
    Found,
    copy_app,
    end_all,
    fetch,
    processes_of,
    wait_until,
    with_changes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support import Answer, Devsup

__all__ = [
    "LONG",
    "PATIENCE",
    "STATUS",
    "Copies",
    "Real",
    "by_hand",
    "copies",
    "environ_of",
    "fails",
    "in_time_wait",
    "leave_in_time_wait",
    "next_argv",
    "reading",
    "refused",
    "serves",
]

#: Seconds for a start, a compilation or an end on two busy cores.
LONG = 90.0
#: Seconds of a test that has several of these.
PATIENCE = 300

PACKAGES = "node_modules"
#: Next.js answers this without compiling anything.
STATUS = "/__nextjs_server_status"
#: What Next.js starts when it is told to stop: in a session of its own, gone a moment later.
_FLUSH = "detached-flush"


class Copies:
    """
    Copies of real apps that the tests of a module share, since copying their packages takes seconds.

    Each test gets its app as it is in the repository: all but the packages is written anew.
    """

    def __init__(self, base: Path) -> None:
        self.base = base

    def renew(self, name: str) -> Path:
        """Return the folder of the copy of ``name``, fresh."""
        folder = self.base / name
        if not folder.exists():
            return copy_app(name, self.base)
        for entry in folder.iterdir():
            if entry.is_dir() and entry.name != PACKAGES:
                shutil.rmtree(entry)
            elif entry.name != PACKAGES:
                entry.unlink()
        ignored = shutil.ignore_patterns(PACKAGES, ".next", ".expo")
        shutil.copytree(APPS[name], folder, ignore=ignored, dirs_exist_ok=True)
        (folder / "devsup.toml").touch()
        return folder


@contextmanager
def copies() -> Iterator[Copies]:
    """Make room for shared copies; remove it afterwards."""
    base = ROOT / ".test-apps"  # inside the tree: only on one file system can files be linked
    base.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="", dir=base))
    yield Copies(folder)
    shutil.rmtree(folder, ignore_errors=True)


class Real(Servers):
    """devsup in the folder of one real app."""

    def __init__(self, devsup: Devsup, home: Path, folder: Path) -> None:
        def here(
            *args: object,
            cwd: Path | None = None,
            env: Mapping[str, str | None] | None = None,
            input: str | None = None,  # noqa: A002 - the word that subprocess.run uses
            timeout: float = 2 * LONG,
        ) -> Answer:
            return devsup(*args, cwd=cwd or folder, env=env, input=input, timeout=timeout)

        super().__init__(here, home, folder)

    @property
    def folder(self) -> Path:
        """The app's folder, which is its project too."""
        return self.project

    def start_args(
        self, name: str, *command: object, port: int | None = None, flags: Sequence[object] = ()
    ) -> list[object]:
        """Return the arguments of a start that has time enough, unless ``flags`` say otherwise."""
        patient = [] if "--timeout" in flags else ["--timeout", LONG]
        return super().start_args(name, *command, port=port, flags=[*patient, *flags])

    def state_becomes(self, target: object, state: str, timeout: float = LONG) -> dict[str, Any]:
        """Wait until a server is in ``state`` and return it."""
        return super().state_becomes(target, state, timeout)

    def listener(self, target: object) -> psutil.Process:
        """Return the process of the tree that serves: `next-server`."""
        found = [one for one in self.members(target) if reading(one).startswith("next-server")]
        assert len(found) == 1, [reading(one) for one in self.members(target)]
        return found[0]

    def package(self, **changes: Any) -> None:
        """Change the app's package.json."""
        path = self.folder / "package.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    @contextmanager
    def without_packages(self) -> Iterator[None]:
        """Let the app's packages be missing."""
        packages, away = self.folder / PACKAGES, self.folder.parent / f"{self.folder.name}-packages"
        packages.rename(away)
        try:
            yield
        finally:
            away.rename(packages)

    def put(self, name: str, text: str) -> str:
        """Write a file of the app as an editor does, in one step; return what it said before."""
        path = self.folder / name
        before = path.read_text() if path.exists() else ""
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.replace(path)
        return before

    def nothing_is_left(self, *ports: int | None) -> None:
        """
        Fail unless everything has ended: processes, listeners, the lock of Next.js, the rows.

        Only the process that sends Next's telemetry may outlive a stop, for a moment.
        """
        assert [one for one in self.running() if _FLUSH not in one.command] == []
        self.nothing_stays(*ports)

    def nothing_stays(self, *ports: int | None) -> None:
        """Fail as `nothing_is_left`, but wait for a guard that has just told of its server's end."""
        wait_until(lambda: not self.running(), LONG)
        lock = self.folder / ".next" / "dev" / "lock"
        if lock.exists():
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._forgotten(*ports)

    def nothing_was_started(self) -> None:
        """Fail unless devsup has neither a process nor a row nor a job."""
        assert processes_of(self.home) == []
        assert self.listed("-a") == []
        jobs = self.home / "servers"
        assert not jobs.exists() or not list(jobs.iterdir())

    def running(self) -> list[Found]:
        """Return what runs with this home in its environment, or in the app's folder."""
        found = {one.pid: one for one in processes_of(self.home)}
        for one in psutil.process_iter():
            try:
                here = Path(one.cwd()) == self.folder and alive(one)
                if here and one.pid not in found:
                    found[one.pid] = Found(one.pid, one.create_time(), " ".join(one.cmdline()))
            except psutil.Error:
                continue
        return list(found.values())


def reading(process: psutil.Process) -> str:
    """Return the command line of a process that may be gone."""
    try:
        return " ".join(process.cmdline()).strip()  # a rewritten command line is padded
    except psutil.Error:
        return ""


def serves(url: object, path: str = "/", status: int = 200) -> str:
    """Wait until ``url`` answers with ``status``, which may take a compilation, and return the body."""

    def body() -> str | None:
        try:
            code, text = fetch(f"{url}{path}", timeout=LONG)
        except OSError:
            return None
        return text if code == status else None

    found = wait_until(body, LONG, pause=0.05)
    assert found is not None
    return found


def fails(url: object, path: str) -> None:
    """Ask for a page that ends its server: no answer can come."""
    try:
        fetch(f"{url}{path}", timeout=LONG)
    except OSError:
        return
    raise AssertionError(f"{url}{path} was answered")


def refused(answer: Answer, code: str, exit_code: int) -> dict[str, Any]:
    """Return the error of a call that failed for exactly this reason."""
    error = answer.error
    assert (error["code"], answer.code) == (code, exit_code), answer
    return error


def next_argv(folder: Path, *args: object) -> list[str]:
    """Return the command line of the app's own `next dev`."""
    return [str(folder / "node_modules" / ".bin" / "next"), "dev", *map(str, args)]


@contextmanager
def by_hand(
    argv: Sequence[str], folder: Path, log: Path, *, env: Mapping[str, str | None] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the app's folder as a person would, without devsup; end all of it afterwards."""
    token = f"stranger-{uuid.uuid4().hex}"
    environment = with_changes({"DEVSUP_HOME": None, **(env or {}), "DEVSUP_TEST_STRANGER": token})
    with (
        log.open("ab") as out,
        subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as child,
    ):
        try:
            yield child
        finally:
            end_all(lambda: processes_of(token))


def leave_in_time_wait(port: int, path: str) -> None:
    """Have the server close a connection first: its port then stays in TIME_WAIT for a minute."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONG) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while connection.recv(65536):
            pass


def in_time_wait(port: int) -> bool:
    """Tell whether a connection of ``port`` is in TIME_WAIT."""
    return any(
        one.laddr and one.laddr[1] == port and one.status == psutil.CONN_TIME_WAIT
        for one in psutil.net_connections("tcp")
    )


def environ_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment a process was started with."""
    pairs = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)

"""A Next.js server that devsup did not start is seen by the lock it holds, and by nothing less."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from devsup.apps import nextlock
from tests.support import RealApp, Spawn, free_port, hear, say, wait_until

LOCK = ".next/dev/lock"

#: Holds the lock as Next.js does, with its folder as the working one, until it hears a line.
HOLDER = """
import fcntl, os, sys
path, content = sys.argv[1:]
fd = os.open(path, os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, content.replace("PID", str(os.getpid())).encode())
print("held", flush=True)
sys.stdin.readline()
"""
CONTENT = '{"pid":PID,"port":3000,"hostname":"localhost","appUrl":"http://localhost:3000","startedAt":1}'


@pytest.fixture
def app(temporary: Path) -> Path:
    (temporary / "web/.next/dev").mkdir(parents=True)
    return temporary / "web"


def hold(spawn: Spawn, app: Path, content: str = CONTENT, lock: str = LOCK, cwd: Path | None = None) -> int:
    holder = spawn(HOLDER, app / lock, content, cwd=cwd or app)
    assert hear(holder) == "held\n"
    return holder.pid


def test_nothing_runs_where_there_is_no_lock(app: Path) -> None:
    assert nextlock.running(str(app)) is None
    assert nextlock.running(str(app / "missing")) is None


def test_a_stale_lock_file_is_not_a_server(app: Path) -> None:
    """SIGKILL leaves the file, but not the lock."""
    (app / LOCK).write_text(CONTENT.replace("PID", str(os.getpid())))
    assert nextlock.running(str(app)) is None


def test_a_held_lock_is_a_server_with_pid_port_and_url(app: Path, spawn: Spawn) -> None:
    pid = hold(spawn, app)
    found = nextlock.running(str(app))
    assert found == {"pid": pid, "port": 3000, "url": "http://localhost:3000", "log": None}
    log = app / ".next/dev/logs/next-development.log"
    log.parent.mkdir()
    log.touch()
    (app.parent / "link").symlink_to(app)
    assert nextlock.running(str(app.parent / "link")) == {**found, "log": str(log)}


def test_it_is_over_when_its_holder_is(app: Path, spawn: Spawn) -> None:
    holder = spawn(HOLDER, app / LOCK, CONTENT, cwd=app)
    assert hear(holder) == "held\n"
    assert nextlock.running(str(app)) is not None
    say(holder, "go\n")
    holder.wait(10)
    assert nextlock.running(str(app)) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"pid":"x"}', '{"pid":true}', '{"pid":-1}', "[" * 99999]
)
def test_what_the_file_does_not_say_is_unknown(app: Path, spawn: Spawn, content: str) -> None:
    """It is empty in 16.0, and half-written for a moment in any version."""
    hold(spawn, app, content)
    assert nextlock.running(str(app)) == {"pid": None, "port": None, "url": None, "log": None}


def test_a_pid_that_works_elsewhere_is_not_believed(app: Path, spawn: Spawn) -> None:
    """The content of a dead server, its pid given to another process, beside a lock that is held."""
    hold(spawn, app, cwd=app.parent)
    found = nextlock.running(str(app))
    assert found is not None
    assert (found["pid"], found["port"], found["url"]) == (None, None, None)


def test_values_of_a_wrong_type_are_unknown(app: Path, spawn: Spawn) -> None:
    pid = hold(spawn, app, '{"pid":PID,"port":"3000","appUrl":1}')
    assert nextlock.running(str(app)) == {"pid": pid, "port": None, "url": None, "log": None}


@pytest.mark.parametrize(
    "config",
    [
        "module.exports = { distDir: 'build/x' }",
        'export default {\n  "distDir": "build/x",\n}',
        "const c = { distDir : './build/x' }",
    ],
)
def test_another_folder_for_builds_is_read_from_the_config(app: Path, spawn: Spawn, config: str) -> None:
    (app / "next.config.mjs").write_text(config)
    (app / "build/x/dev").mkdir(parents=True)
    pid = hold(spawn, app, lock="build/x/dev/lock")
    found = nextlock.running(str(app))
    assert found is not None
    assert found["pid"] == pid


@pytest.mark.parametrize("config", ["export default { distDir: process.env.X }", "distDir", "distDir: '"])
def test_a_config_that_must_be_run_to_be_known_leaves_the_default(
    app: Path, spawn: Spawn, config: str
) -> None:
    (app / "next.config.js").write_text(config)
    hold(spawn, app)
    assert nextlock.running(str(app)) is not None


def test_looking_leaves_no_lock_and_no_descriptor(app: Path) -> None:
    (app / LOCK).touch()
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    for _ in range(20):
        assert nextlock.running(str(app)) is None
    with (app / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    after = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    assert len(after) == len(before)


def test_two_who_look_at_once_do_not_see_each_other(app: Path) -> None:
    """An exclusive look would take another devsup's look for a server."""
    with (app / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert nextlock.running(str(app)) is None


def test_a_fifo_in_its_place_does_not_hang(app: Path) -> None:
    os.mkfifo(app / LOCK)
    assert nextlock.running(str(app)) is None


@pytest.mark.real
def test_a_real_next_says_where_it_runs(real_app: RealApp) -> None:
    """Lock, content and folder are Next.js's own affair: only the real one tells that they hold."""
    app = real_app("web")
    port = free_port()
    argv = [str(app / "node_modules/.bin/next"), "dev", "-H", "127.0.0.1", "-p", str(port)]
    with (
        (app / "log").open("w") as log,
        subprocess.Popen(
            argv, cwd=app, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        ) as server,
    ):
        try:
            wait_until(lambda: (nextlock.running(str(app)) or {}).get("pid") is not None, 30)
            found = nextlock.running(str(app))
        finally:
            os.killpg(server.pid, signal.SIGKILL)
    assert found is not None
    assert found["pid"] != server.pid, "the listener is a child of the process that was started"
    assert (found["port"], found["url"]) == (port, f"http://127.0.0.1:{port}")
    wait_until(lambda: nextlock.running(str(app)) is None, 10)
    assert (app / LOCK).exists()

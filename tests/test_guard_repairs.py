"""What a guard makes good: writes that failed, folders that are gone, a system without `waitid`."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devsup.guard import launch
from devsup.guard.children import exit_of
from devsup.guard.job import Job
from tests.support import Devsup, Spawn, fetch, free_port, hear, server_argv, wait_until

RESERVE = """
import os, sys
from devsup import identity, system
from devsup.models import Row
from devsup.paths import ensure_home, find_home
from devsup.registry import Registry
home, project = find_home(), sys.argv[1]
ensure_home(home)
registry = Registry(home)
row = registry.reserve(
    Row(
        id=sys.argv[2], generation=0, scope=identity.here().key, netns=system.net_namespace(),
        project=project, session="dev_server_web", app="web", kind="command", cwd=project,
        command=["sleep", "60"], log="",
        owner=None, started_at=0, starter=identity.me(),
    ),
    dead=[], limit=32, port=None, log_of=lambda generation: home.log(project, "dev_server_web", generation),
)
print("reserved", flush=True)
sys.stdin.readline()
"""


def server(devsup: Devsup, name: str = "web") -> dict[str, object]:
    """Return the record of a server as `status` shows it."""
    record: dict[str, object] = devsup("status", name, "--json").data["server"]
    return record


def test_what_the_registry_would_not_take_is_written_later(devsup: Devsup, home: Path, project: Path) -> None:
    """A registry that is locked while the server becomes ready must not leave it `starting` for ever."""
    port = free_port()
    gate = project / "go"
    wait_for_gate = f'while [ ! -e {gate} ]; do read -t 0.05 _ <> <(:); done; exec "$@"'
    command = ("--", "bash", "-c", wait_for_gate, "bash", *server_argv("web", "--port", port))
    devsup("start", "web", "--port", port, "--no-wait", "--json", *command)
    with (home / "registry.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gate.touch()
        log = next((home / "logs").glob("*/dev_server_web.guard.log"))
        wait_until(lambda: "cannot write" in log.read_text(), timeout=30)
        fcntl.flock(lock, fcntl.LOCK_UN)
    wait_until(lambda: server(devsup)["state"] == "ready", timeout=20)
    assert devsup("wait", "web", "--json").code == 0
    assert devsup("stop", "web", "--json").code == 0


def test_a_server_with_a_new_guard_can_be_restarted(devsup: Devsup, project: Path) -> None:
    """Its program was found on the PATH once; the new guard must be told where, not its bare name."""
    script = server_argv("web")[-1]
    lines = [
        "import runpy, sys",
        f"sys.argv[0] = {script!r}",
        f"sys.path.insert(0, {os.path.dirname(script)!r})",
    ]
    (project / "web.py").write_text("\n".join([*lines, f"runpy.run_path({script!r}, run_name='__main__')"]))
    port = free_port()
    command = ("--", "python3", "web.py", "--port", port)
    devsup("start", "web", "--port", port, "--json", *command)
    os.kill(int(str(server(devsup)["guard_pid"])), signal.SIGKILL)
    again = devsup("start", "web", "--port", port, "--json", *command)
    assert again.data["reused"]
    assert any("new one" in note for note in again.notes)
    restarted = devsup("restart", "web", "--json").data["server"]
    assert fetch(str(restarted["url"]))[0] == 200
    assert devsup("stop", "web", "--json").code == 0


def test_a_restart_lets_a_start_in_flight_arrive(spawn: Spawn, devsup: Devsup, project: Path) -> None:
    """Somebody's reservation is not there to be taken away: it is waited for, and told of in the end."""
    server = os.urandom(6).hex()
    starter = spawn(RESERVE, project, server)
    assert hear(starter) == "reserved\n"
    restart = devsup("restart", "web", "--timeout", "1", "--json")
    assert restart.error["code"] == "not_ready"
    listed = devsup("list", "--json").data["servers"]
    assert [one["id"] for one in listed] == [server]


def test_a_restart_survives_the_removal_of_its_folders(devsup: Devsup, home: Path) -> None:
    """Somebody tidied the state folder up: the guard makes what it needs and goes on from memory."""
    port = free_port()
    command = ("--", *server_argv("web", "--port", port))
    devsup("start", "web", "--port", port, "--env", "SECRET=kept", "--json", *command)
    shutil.rmtree(home / "logs")
    shutil.rmtree(home / "servers")
    restarted = devsup("restart", "web", "--json")
    assert restarted.data["server"]["generation"] > 1
    assert restarted.notes == []
    assert "kept" in fetch(f"{restarted.data['server']['url']}/self")[1]
    assert devsup("stop", "web", "--json").code == 0


def test_a_guard_that_asked_over_http_sleeps_when_it_has_its_answer(devsup: Devsup, project: Path) -> None:
    """The probe's descriptor number may go to the listener's next: that is no exit, nothing to look for."""
    binary = project / "node_modules" / ".bin" / "next"
    binary.parent.mkdir(parents=True)
    (project / "app").mkdir()
    (project / "package.json").write_text('{"scripts": {"dev": "next dev"}, "dependencies": {"next": "16"}}')
    words = " ".join(f"'{word}'" for word in server_argv("next_like"))
    binary.write_text(f'#!/bin/sh\nshift\nexec {words} "$@"\n')
    binary.chmod(0o755)
    devsup("start", "web", "--port", free_port(), "--json")
    status = Path(f"/proc/{server(devsup)['guard_pid']}/status")

    def switches() -> int:
        return sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_sw" in line)

    before = switches()
    select.select([], [], [], 1.5)  # what is measured: that nothing happens in this time
    assert switches() - before <= 10  # a guard that turns does so thousands of times
    assert devsup("stop", "web", "--json").code == 0


def test_a_stopped_guard_is_woken_for_a_restart(devsup: Devsup) -> None:
    """A guard that somebody has suspended hears a restart as it hears a stop."""
    port = free_port()
    devsup("start", "web", "--port", port, "--json", "--", *server_argv("web", "--port", port))
    os.kill(int(str(server(devsup)["guard_pid"])), signal.SIGSTOP)
    assert devsup("restart", "web", "--json").data["server"]["generation"] > 1
    assert devsup("stop", "web", "--json").code == 0


@pytest.mark.parametrize("without", [False, True])
def test_how_a_child_ended_is_known_with_and_without_waitid(
    without: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS there is no `waitid` before Python 3.13: the child is reaped then, and that is said."""
    if without:
        monkeypatch.delattr(os, "waitid")
    endings = []
    for code in ("raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"):
        with subprocess.Popen([sys.executable, "-c", code]) as child:
            found = wait_until(lambda child=child: exit_of(child.pid))  # type: ignore[misc]
            assert found is not None
            endings.append((found.code, found.signal, found.reaped))
            if found.reaped:
                child.returncode = 0  # nothing is left for it to wait for
    assert endings == [(3, None, without), (None, 9, without)]


def test_a_running_child_has_not_ended(spawn: Spawn) -> None:
    """No news is no exit."""
    assert exit_of(spawn("import sys; sys.stdin.read()").pid) is None


def test_a_fork_that_fails_leaves_no_descriptor_and_no_blocked_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its guard goes on: it may try often, and is to hear of a stop."""

    def fails() -> int:
        raise BlockingIOError(errno.EAGAIN, "no process is to be had")

    job: dict[str, Any] = dict.fromkeys(Job._fields)
    before, blocked = os.listdir("/dev/fd"), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "fork", fails)
    with pytest.raises(BlockingIOError):
        launch.fork(Job(**job), {}, 1)
    assert os.listdir("/dev/fd") == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked

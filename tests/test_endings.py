"""Stops in bad company: hidden daemons, full disks, few descriptors, moved sockets, late children."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devsup import identity
from devsup.models import Outcome, Row, State
from devsup.supervisor import Supervisor, stop, view
from devsup.supervisor.view import Life
from tests.support import Devsup, devsup_argv, free_port, is_listening, processes_of, wait_until, with_changes

SERVE = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
HIDE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[2]], {})
    os._exit(0)
time.sleep(1000)
"""
MOVE = """
import os, socket, sys
first = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while not os.path.exists("move"):
    os.sched_yield()
second = socket.create_server(("127.0.0.1", int(sys.argv[2])))
first.close()
os.pause() if hasattr(os, "pause") else __import__("signal").pause()
"""
LATE = 'trap ":" TERM; while :; do setsid sh -c "exec sleep 60"; done'


def kill_guard(devsup: Devsup, name: str) -> None:
    """Kill the guard of ``name`` and see that the server lives on without one."""
    os.kill(devsup("status", name, "--json").data["server"]["guard_pid"], signal.SIGKILL)
    assert (
        wait_until(lambda: devsup("status", name, "--json").data["server"]["guard_pid"] is None) is not False
    )


def test_a_daemon_that_only_its_socket_gives_away_is_ended(devsup: Devsup) -> None:
    """Own session, no marker, no parent, no guard: its recorded socket proves that it is the server."""
    port = free_port()
    devsup("start", "web", "--port", port, "--json", "--", sys.executable, "-c", HIDE, SERVE, port)
    kill_guard(devsup, "web")
    [result] = devsup("stop", "web", "--json").data["results"]
    assert (result["outcome"], result["port_free"]) == ("stopped", True)
    assert not is_listening(port)


def test_what_is_born_after_the_term_does_not_outlive_the_kill(devsup: Devsup, home: Path) -> None:
    """Only a tree that ends by itself has somebody on his way out; from others nobody is spared."""
    devsup("start", "job", "--json", "--", "bash", "-c", LATE)
    [result] = devsup("stop", "job", "--grace", "0.3", "--json").data["results"]
    assert (result["outcome"], result["escalated"], result["survivors"]) == ("stopped", True, [])
    assert processes_of(home) == []


def test_a_stop_speaks_of_the_port_where_the_server_listened_last(devsup: Devsup, project: Path) -> None:
    """A living process may move its socket: the end is told of the new one."""
    old, new = free_port(), free_port()
    devsup("start", "web", "--port", old, "--json", "--", sys.executable, "-c", MOVE, old, new)
    (project / "move").touch()
    wait_until(lambda: is_listening(new) and not is_listening(old))
    [result] = devsup("stop", f":{new}", "--json").data["results"]
    assert (result["outcome"], result["server"]["port"], result["port_free"]) == ("stopped", new, True)


def test_all_targets_are_stopped_with_few_descriptors(devsup: Devsup, project: Path) -> None:
    """Waiting on many processes is a comfort; without the descriptors for it each is looked at."""
    names = [f"job{number}" for number in range(12)]
    for name in names:
        start = devsup("start", name, "--no-wait", "--json", "--", "sleep", "60")
        assert start.code == 0, start
    stop = subprocess.run(
        devsup_argv("stop", "--all", "--json"),
        cwd=project, env=with_changes(None), capture_output=True, text=True, timeout=40, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (18, 18)),
    )  # fmt: skip
    assert stop.returncode == 0, stop.stdout
    results = json.loads(stop.stdout)["data"]["results"]
    assert [one for one in results if one["outcome"] != "stopped"] == []
    assert len(results) == len(names)


#: Takes half a second to end.
SLOW = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))
print("up", flush=True)
while True:
    signal.pause()
"""


def test_a_guard_that_ends_between_two_looks_has_stopped_its_server(
    devsup: Devsup, home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced: the row is read while its guard lives, the guard looked for when it has written the end."""
    devsup("start", "job", "--json", "--", sys.executable, "-c", SLOW)
    real = view.life

    def late(row: Row) -> Life:
        if row.stop is not None and row.guard is not None:
            guard = row.guard
            wait_until(lambda: identity.is_gone(guard), 30)
        return real(row)

    monkeypatch.setattr(view, "life", late)
    monkeypatch.setattr(stop._Stop, "_wait_for", lambda *_, **__: None)
    result = Supervisor(str(project), str(home)).stop_server("job")
    assert (result.outcome, result.signals) == (Outcome.STOPPED, ["SIGTERM"])
    assert result.server is not None
    assert result.server.state is State.STOPPED


@pytest.fixture
def small_disk(temporary: Path) -> Iterator[Path]:
    """Give a filesystem of half a megabyte, as root can make one."""
    folder = temporary / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small filesystem can only be mounted as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the loop ends in no other way


def test_a_full_disk_does_not_keep_a_server_alive(
    devsup: Devsup, small_disk: Path, leftovers: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be written, so the row stays and the answer says so; the processes end all the same."""
    del leftovers
    port = free_port()
    monkeypatch.setenv("DEVSUP_HOME", str(small_disk / "home"))
    devsup("start", "web", "--port", port, "--json", "--", sys.executable, "-c", SERVE, port)
    fill(small_disk / "filler")
    stop = devsup("stop", "web", "--json")
    [result] = stop.json["data"]["results"]
    assert (stop.code, result["error"] if "error" in result else stop.error["code"]) == (
        11,
        "registry_unusable",
    )
    assert "row stays" in stop.error["message"]
    assert not is_listening(port)
    (small_disk / "filler").unlink()
    wait_until(lambda: processes_of(small_disk / "home") == [])
    assert devsup("stop", "web", "--json").code == 0
    assert devsup("list", "--json").data["servers"] == []


def test_a_server_is_found_and_ended_after_its_state_folder_was_deleted(devsup: Devsup, home: Path) -> None:
    """No folder is not "nothing runs": the living carry their marker, and the registry comes back from it."""
    port = free_port()
    devsup("start", "web", "--port", port, "--json", "--", sys.executable, "-c", SERVE, port)
    shutil.rmtree(home)
    listed = devsup("list", "--json")
    assert [one["session"] for one in listed.data["servers"]] == ["dev_server_web"]
    [result] = devsup("stop", "--all", "--json").data["results"]
    assert result["outcome"] == "stopped"
    assert not is_listening(port)

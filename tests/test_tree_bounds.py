"""What descends from a server and is not its own to end: other servers, shared programs, late-comers."""

from __future__ import annotations

import os
import re
import sys
import uuid
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from devsup import system
from devsup import tree as trees
from devsup.models import Identity
from devsup.tree import Marker, Tree
from tests.serving import (
    CLEAN,
    LINUX_ONLY,
    Servers,
    alive,
    ended_by_kill,
    ended_by_term,
    has_terminal,
    pid_at,
    process,
    script,
    seen,
)
from tests.support import SERVERS, end_all, free_port, hear, is_listening, processes_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Devsup, Leftovers, Spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


# -- a server inside a server ----------------------------------------------------------------------

OUTER = """
import subprocess
from stand_in import SERVERS, listen, obey, serve, wanted_port
obey()
argv = [sys.executable, "-m", "devsup", "start", "inner", "--json", "--port", sys.argv[1], "--",
        sys.executable, sys.argv[2]]
subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
serve(listen(wanted_port()))
""".replace("SERVERS, ", "")


@pytest.fixture
def nested(servers: Servers) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start a server whose own process starts another one by devsup; return both."""
    command = script(servers.project, "outer", OUTER)
    outer = servers.start("outer", *command, str(free_port()), SERVERS / "web.py", port=free_port())
    return outer, servers.find("inner")


@LINUX_ONLY
def test_a_server_inside_a_server_survives_the_outer_one(
    servers: Servers, nested: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """It is its own: its guard is a descendant of the outer guard, and still nobody's to signal."""
    outer, inner = nested
    listener, guard = process(pid_at(inner["url"])), process(inner["guard_pid"])
    assert guard.ppid() == outer["guard_pid"]
    assert {member.pid for member in servers.members("outer")}.isdisjoint({guard.pid, listener.pid})
    ended_by_term(servers.stop("outer"))
    assert alive(listener)
    assert alive(guard)
    assert [(server["session"], server["state"]) for server in servers.listed()] == [
        ("dev_server_inner", "ready")
    ]
    ended_by_term(servers.stop("inner"))
    servers.nothing_is_left(outer["port"], inner["port"])


@LINUX_ONLY
def test_an_outer_guard_reaps_the_inner_one(
    servers: Servers, nested: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    outer, inner = nested
    guard, reaper = process(inner["guard_pid"]), process(outer["guard_pid"])
    ended_by_term(servers.stop("inner"))
    wait_until(lambda: not guard.is_running())  # not even a zombie
    assert alive(reaper)
    assert pid_at(outer["url"])
    ended_by_term(servers.stop("outer"))
    servers.nothing_is_left(outer["port"], inner["port"])


def test_a_stop_without_a_guard_leaves_the_inner_server_too(
    servers: Servers, nested: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    outer, inner = nested
    process(outer["guard_pid"]).kill()
    ended_by_term(servers.stop("outer"))
    assert pid_at(inner["url"])
    ended_by_term(servers.stop("inner"))
    servers.nothing_is_left(outer["port"], inner["port"])


# -- numbers that are given away -------------------------------------------------------------------

#: A session whose leader has ended, with one process left in it, and with another that carries the marker in
#: its argument, if there is one. They end with the standard input. Each says itself that it is there: until
#: it runs its own program it has the command line and the environment of its parent.
ABANDONED = """
import os, sys
here, there = os.pipe()
os.set_inheritable(there, True)
program = f"import os, sys; os.write({there}, b'%d ' % os.getpid()); os.close({there}); sys.stdin.read()"
environments = [{}, *({"DEVSUP_MARKER": marker} for marker in sys.argv[1:])]
middle = os.fork()
if middle == 0:
    os.setsid()
    for environ in environments:
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-ISc", program], environ)
    os._exit(0)
os.waitpid(middle, 0)
said = b""
while len(said.split()) < len(environments) or not said.endswith(b" "):
    said += os.read(here, 100)
print(middle, said.decode(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ours", [False, True])
def test_a_session_is_ours_only_on_proof(spawn: Spawn, ours: bool) -> None:
    """A leader's number may be another session's by now, whose own leader has ended too."""
    marker = Marker("/home", "/project", "dev_server_web", uuid.uuid4().hex[:12], 1)
    child = spawn(ABANDONED, *([str(marker)] if ours else []))
    number, *there = map(int, hear(child).split())
    leader = Identity(number, 0, system.boot_id())  # started before all of them
    found = [info.pid for info in trees.members(Tree(marker.id, leader), full=True)]
    assert sorted(found) == (sorted(there) if ours else [])
    child.communicate(timeout=30)


def test_strangers_are_passed_over(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine has hundreds of them, and twenty guards may look at all of them at once."""
    marker = Marker("/home", "/project", "dev_server_web", uuid.uuid4().hex[:12], 1)
    child = spawn(ABANDONED, str(marker))
    number, *there = map(int, hear(child).split())
    looked_at: list[int] = []
    look = system.process

    def process(pid: int) -> system.ProcessInfo | None:
        looked_at.append(pid)
        return look(pid)

    monkeypatch.setattr(system, "process", process)
    found = trees.members(Tree(marker.id, Identity(number, 0, system.boot_id())), full=True)
    assert sorted(info.pid for info in found) == sorted(there)
    assert set(looked_at) <= {number, *there}
    child.communicate(timeout=30)


# -- what is shared with the user ------------------------------------------------------------------


def companions(servers: Servers, server: dict[str, Any]) -> dict[str, psutil.Process]:
    """Return the programs that the stand-in of that name has started."""
    found = re.findall(r"^companion (\S+) (\d+)$", servers.log(server), re.MULTILINE)
    return {name: process(int(pid)) for name, pid in found}


@pytest.fixture
def kept_ones(leftovers: Leftovers, home: Path) -> Iterator[None]:
    """End what a stop has left running on purpose, once the test has looked."""
    del leftovers
    yield
    end_all(lambda: processes_of(home))


@pytest.mark.usefixtures("kept_ones")
@pytest.mark.parametrize("way", ["guard", "no guard"])
def test_an_editor_and_a_watchman_survive_and_are_named(servers: Servers, way: str) -> None:
    """They were started by the server and belong to the user, or to every project there is."""
    port = free_port()
    names = ["code", "watchman", "adb"]
    server = servers.stand_in("web", "companions", *_named(names), port=port)
    started = companions(servers, server)
    assert list(started) == names
    if way == "no guard":
        process(server["guard_pid"]).kill()
    result = servers.stop("web")
    assert seen(result) == {**CLEAN, "left_running": result["left_running"]}
    assert {one["pid"] for one in result["left_running"]} == {one.pid for one in started.values()}
    assert all(name in str(result["left_running"]) for name in names)
    assert all(alive(one) for one in started.values())
    assert not is_listening(port)
    assert servers.listed() == []


def _named(names: list[str]) -> list[str]:
    return [word for name in names for word in ("--name", name)]


def test_a_sweep_ends_them_too(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "companions", *_named(["code", "watchman"]), port=port)
    started = companions(servers, server)
    result = servers.stop("web", "--sweep")
    ended_by_term(result)
    assert not any(alive(one) for one in started.values())
    servers.nothing_is_left(port)


def test_a_shared_program_that_holds_the_port_is_ended(servers: Servers) -> None:
    """Left alone it would keep the next start from its port."""
    port = free_port()
    server = servers.stand_in("web", "companions", "--hold", *_named(["watchman"]), port=port)
    holder = companions(servers, server)["watchman"]
    result = servers.stop("web")
    ended_by_term(result)
    assert not alive(holder)
    servers.nothing_is_left(port)


WITH_TERMINAL = """
import os
from stand_in import listen, obey, out, serve, sleep_forever, wanted_port
obey()
listener = listen(wanted_port())
pid = os.fork()
if pid == 0:
    listener.close()
    os.setsid()
    os.open(sys.argv[1], os.O_RDWR)  # a session's leader gets the first terminal it opens
    sleep_forever()
out(f"companion shell {pid}")
serve(listener)
"""


@pytest.mark.usefixtures("kept_ones")
@LINUX_ONLY
def test_whoever_has_a_terminal_is_left_alone(servers: Servers) -> None:
    """Somebody sits before it."""
    port = free_port()
    master, slave = os.openpty()
    try:
        command = script(servers.project, "with_terminal", WITH_TERMINAL)
        server = servers.start("web", *command, os.ttyname(slave), port=port)
        shell = companions(servers, server)["shell"]
        wait_until(lambda: has_terminal(shell.pid))
        result = servers.stop("web")
        assert [one["pid"] for one in result["left_running"]] == [shell.pid]
        assert alive(shell)
    finally:
        os.close(master)
        os.close(slave)


# -- what detaches itself when it is told to end ---------------------------------------------------


FLUSH = """
import os, signal
from stand_in import listen, on, pause, serve, start, wanted_port

def flush():
    pause(0.03)  # the real one comes when next-server has ended
    start([sys.executable, "-c", "import signal; signal.pause()", sys.argv[1]], session=True, quiet=True)
    os._exit(0)

on(signal.SIGTERM, flush)
serve(listen(wanted_port()))
"""


@pytest.mark.usefixtures("kept_ones")
def test_a_flush_at_the_end_is_neither_waited_for_nor_a_survivor(servers: Servers) -> None:
    """Next.js sends its telemetry after it was stopped; without a network that takes its time."""
    port = free_port()
    command = script(servers.project, "flush", FLUSH)
    servers.start("web", *command, "next/dist/telemetry/detached-flush.js", port=port)
    ended_by_term(servers.stop("web"))
    (helper,) = processes_of(servers.home)
    assert helper.command.endswith("detached-flush.js")
    assert servers.listed() == []
    assert not is_listening(port)


@pytest.mark.usefixtures("kept_ones")
def test_what_else_detaches_itself_at_the_end_is_named(servers: Servers) -> None:
    """Nobody waits for it, but nobody knows it for harmless."""
    port = free_port()
    servers.start("web", *script(servers.project, "flush", FLUSH), "something else", port=port)
    result = servers.stop("web")
    assert seen(result) == {**CLEAN, "left_running": result["left_running"]}
    assert [one["pid"] for one in result["left_running"]] == [one.pid for one in processes_of(servers.home)]


FLUSH_WITH_THE_PORT = """
import os, signal
from stand_in import listen, on, pause, serve, sleep_forever, wanted_port

def detach():
    pause(0.03)
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleep_forever()  # with the listening socket
    os._exit(0)

on(signal.SIGTERM, detach)
serve(listen(wanted_port()))
"""


def test_who_detaches_itself_with_the_port_is_ended(servers: Servers) -> None:
    port = free_port()
    servers.start("web", *script(servers.project, "flush", FLUSH_WITH_THE_PORT), port=port)
    ended_by_kill(servers.stop("web", "--grace", "0.3"))
    servers.nothing_is_left(port)


PHOENIX = """
import os, signal
from stand_in import listen, obey, on, pause, serve, wanted_port

def again():
    listener.close()
    pause(0.03)
    up, is_up = os.pipe()
    if os.fork() == 0:
        os.setsid()
        obey()
        new = listen(port)
        os.write(is_up, b".")
        serve(new)
    os.read(up, 1)
    os._exit(0)

port = wanted_port()
on(signal.SIGTERM, again)
listener = listen(port)
serve(listener)
"""


def test_who_comes_back_on_the_port_is_ended(servers: Servers) -> None:
    """A new session and a new socket on the old port: no flush, but the server once more."""
    port = free_port()
    servers.start("web", *script(servers.project, "phoenix", PHOENIX), port=port)
    ended_by_term(servers.stop("web"))
    servers.nothing_is_left(port)

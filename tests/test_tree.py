"""Whatever shape a server's tree has, a stop ends all of it and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from devsup import system, tree
from tests.serving import (
    LINUX_ONLY,
    Servers,
    alive,
    ended_by_kill,
    ended_by_term,
    pid_at,
    process,
    script,
)
from tests.support import SERVERS, fetch, free_port, hear, wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen
    from typing import Any

    from tests.support import Devsup, Spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


# -- wrappers --------------------------------------------------------------------------------------

WRAPPERS = {
    "npm": ["npm_like"],
    "yarn 1": ["npm_like", "--code-of-child"],
    "pnpm 12, the script in its own group": ["pnpm_like"],
    "pnpm 12 that hands nothing on": ["pnpm_like", "--careless"],
    "sh -c in sh -c": ["chain", "--levels", "2", "--", sys.executable, str(SERVERS / "web.py")],
    "npm that runs pnpm": ["chain", "--", sys.executable, str(SERVERS / "pnpm_like.py"), "--careless"],
}


@pytest.mark.parametrize("shape", WRAPPERS)
def test_a_chain_of_wrappers_ends_with_its_server(servers: Servers, shape: str) -> None:
    """The pid that was started is not the one that listens, and signals to it reach nobody else."""
    port = free_port()
    server = servers.stand_in("web", *WRAPPERS[shape], port=port)
    listener = process(pid_at(server["url"]))
    assert listener.pid != server["pid"]
    ended_by_term(servers.stop("web"))
    assert not alive(listener)
    servers.nothing_is_left(port)


def test_an_interrupt_that_a_wrapper_ignores_changes_nothing(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "npm_like", port=port)
    os.kill(server["pid"], signal.SIGINT)
    assert pid_at(server["url"])
    assert servers.find("web")["state"] == "ready"
    ended_by_term(servers.stop("web"))
    servers.nothing_is_left(port)


# -- trees that do not end when they are told to ---------------------------------------------------


def test_a_child_that_ignores_term_is_killed(servers: Servers) -> None:
    """Its parent obeys and is gone at once: waiting for the leader alone would leave the child serving."""
    port = free_port()
    server = servers.stand_in("web", "stubborn", "--child", port=port)
    child = process(pid_at(server["url"]))
    ended_by_kill(servers.stop("web", "--grace", "0.3"))
    assert not alive(child)
    servers.nothing_is_left(port)


@pytest.mark.parametrize("leader", ["waits", "leaves"])
def test_a_daemon_in_a_session_of_its_own_is_found_and_ended(servers: Servers, leader: str) -> None:
    """Double-forked: neither parent, nor group, nor session ties it to what was started."""
    port = free_port()
    flags = ["--leave"] if leader == "leaves" else []
    server = servers.stand_in("web", "daemon_holder", *flags, port=port)
    daemon = pid_at(server["url"])
    assert os.getsid(daemon) != server["pid"]
    ended_by_term(servers.stop("web"))
    servers.nothing_is_left(port)


NAMELESS = """
import os, sys
from stand_in import listen, obey, serve, shown, out, sleep_forever, wanted_port
port = wanted_port()
if os.environ.get("SERVING"):
    obey()
    serve(listen(port))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, *sys.argv], {"SERVING": "1", "PORT": str(port)})
    os._exit(0)
os.wait()
sleep_forever()
"""


@LINUX_ONLY
def test_who_drops_marker_session_and_parent_is_still_the_guards(servers: Servers) -> None:
    """`env -i` and a double fork: only the subreaper knows where it came from."""
    port = free_port()
    server = servers.start("web", *script(servers.project, "nameless", NAMELESS), port=port)
    daemon = process(pid_at(server["url"]))
    assert "DEVSUP_MARKER" not in daemon.environ()
    ended_by_term(servers.stop("web"))
    assert not alive(daemon)
    servers.nothing_is_left(port)


def test_a_stopped_tree_is_woken_to_hear_that_it_shall_end(servers: Servers) -> None:
    """A process under SIGSTOP does not see SIGTERM until it gets SIGCONT."""
    port = free_port()
    servers.stand_in("web", "npm_like", port=port)
    members = servers.members("web")
    assert len(members) == 3
    for member in members:
        member.suspend()
    wait_until(lambda: all(member.status() == psutil.STATUS_STOPPED for member in members))
    ended_by_term(servers.stop("web", "--grace", "20"))
    servers.nothing_is_left(port)


BREEDER = """
import os, signal
from stand_in import listen, on, serve, sleep_forever, wanted_port

def breed():
    # Thirty in all: each ignores TERM, and only the first ten have children.
    for _ in range(10):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for _ in range(2):
                if os.fork() == 0:
                    sleep_forever()
            sleep_forever()

on(signal.SIGTERM, breed)
serve(listen(wanted_port()))
"""


def test_what_is_born_during_the_stop_ends_with_it(servers: Servers) -> None:
    port = free_port()
    servers.start("web", *script(servers.project, "breeder", BREEDER), port=port)
    ended_by_kill(servers.stop("web", "--grace", "0.3"))
    servers.nothing_is_left(port)


RELAY = """
import os, signal
from stand_in import listen, on, pause, serve, sleep_forever, wanted_port

def hand_over():
    pause(0.03)  # a tick of the kernel's clock is 0.01
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(3, 64)
        sleep_forever()
    os._exit(0)

if os.fork() == 0:
    os.setsid()
    on(signal.SIGTERM, hand_over)
    serve(listen(wanted_port()))
on(signal.SIGTERM, lambda: os._exit(0))
sleep_forever()
"""


def test_a_daemon_cannot_pass_its_life_on_to_a_child(servers: Servers) -> None:
    """Born after the TERM and outside the leader's session, but in one that was there before."""
    port = free_port()
    servers.start("web", *script(servers.project, "relay", RELAY), port=port)
    ended_by_kill(servers.stop("web", "--grace", "0.3"))
    servers.nothing_is_left(port)


# -- who comes from elsewhere ----------------------------------------------------------------------

#: Started for the tree by somebody who is none of it (a daemon, `systemd-run`): only its marker tells.
STRAY = """
import os, signal, sys
def end(*_):
    print("termed", flush=True)
    if sys.argv[1] == "obeys":
        os._exit(0)
    if sys.argv[1] == "hands over" and os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    signal.pause()
"""


def stray(spawn: Spawn, server: dict[str, Any], does: str) -> Popen[str]:
    marker = process(server["pid"]).environ()["DEVSUP_MARKER"]
    child = spawn(STRAY, does, env={"DEVSUP_MARKER": marker})
    assert hear(child) == "up\n"
    return child


@pytest.mark.parametrize(("name", "grace"), [("web", "20"), ("stubborn", "1.5"), ("stubborn", "0.7")])
def test_who_only_carries_the_marker_is_asked_before_he_is_killed(
    servers: Servers, spawn: Spawn, name: str, grace: str
) -> None:
    port = free_port()
    child = stray(spawn, servers.stand_in("web", name, port=port), "obeys")
    result = servers.stop("web", "--grace", grace)
    assert (result["outcome"], result["survivors"], result["left_running"]) == ("stopped", [], [])
    assert (hear(child), child.wait(30)) == ("termed\n", 0)
    servers.nothing_is_left(port)


@LINUX_ONLY
@pytest.mark.parametrize("does", ["stays", "hands over"])
def test_who_only_carries_the_marker_has_the_whole_grace(servers: Servers, spawn: Spawn, does: str) -> None:
    """He is asked a quarter of a second after the others. A child in his session is no way out."""
    port = free_port()
    child = stray(spawn, servers.stand_in("web", "stubborn", port=port), does)
    result = servers.stop("web", "--grace", "1.2")
    assert hear(child) == "termed\n"
    assert (result["signals"], result["survivors"], result["left_running"]) == (
        ["SIGTERM", "SIGKILL"],
        [],
        [],
    )
    assert result["ms"] >= 1_440
    servers.nothing_is_left(port)


# -- zombies ---------------------------------------------------------------------------------------

PARENT = """
import os
from stand_in import listen, obey, serve, wanted_port
obey()
if os.fork() == 0:
    os._exit(0)
serve(listen(wanted_port()))
"""


def test_a_zombie_is_no_process_of_the_tree(servers: Servers) -> None:
    port = free_port()
    server = servers.start("web", *script(servers.project, "parent", PARENT), port=port)
    (zombie,) = wait_until(lambda: process(server["pid"]).children())
    wait_until(lambda: zombie.status() == psutil.STATUS_ZOMBIE)
    assert [member.pid for member in servers.members("web")] == [server["pid"]]
    ended_by_term(servers.stop("web"))
    servers.nothing_is_left(port)


NEVER_REAPS = """
import ctypes, json, os, signal, subprocess, sys
set_child_subreaper = 36
assert ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) == 0
started = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True).stdout
os.kill(json.loads(started)["data"]["server"]["guard_pid"], signal.SIGKILL)
print(started.decode(), flush=True)
sys.stdin.read()
"""


@LINUX_ONLY
def test_a_zombie_that_nobody_ever_reaps_is_no_survivor(servers: Servers, spawn: Spawn) -> None:
    """In many containers process 1 is no init: whoever comes to it stays as a zombie, and `kill` finds it."""
    port = free_port()
    args = servers.start_args("web", sys.executable, SERVERS / "web.py", port=port)
    sloth = spawn(NEVER_REAPS, sys.executable, "-m", "devsup", *args, cwd=servers.project)
    assert '"ready"' in hear(sloth)
    server = servers.find("web")
    ended_by_term(servers.stop("web"))
    assert process(server["pid"]).status() == psutil.STATUS_ZOMBIE
    sloth.communicate()
    servers.nothing_is_left(port)


# -- a leader that ends first ----------------------------------------------------------------------


def test_a_server_outlives_its_leader_and_ends_with_its_listener(servers: Servers) -> None:
    """As when npm is killed by hand: the server is still there, and still tracked."""
    port = free_port()
    server = servers.stand_in("web", "leader_first", port=port)
    leader = process(server["pid"])
    wait_until(lambda: not alive(leader))
    listener = process(pid_at(server["url"]))
    shown = servers.find("web")
    assert (shown["state"], shown["pid"], shown["url"]) == ("ready", server["pid"], server["url"])
    with pytest.raises(OSError):  # the connection is cut
        fetch(f"http://localhost:{port}/exit?3")
    crashed = servers.state_becomes("web", "crashed")
    assert not alive(listener)
    assert (crashed["guard_pid"], crashed["exit_code"]) == (None, 0)
    (result,) = servers.devsup("stop", "web", "--json").data["results"]
    assert result["outcome"] == "already_stopped"
    servers.nothing_is_left(port)


def test_a_server_without_its_leader_can_be_stopped(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "leader_first", port=port)
    leader = process(server["pid"])
    wait_until(lambda: not alive(leader))
    ended_by_term(servers.stop(server["pid"]))
    servers.nothing_is_left(port)


REMAINDER = """
import os
from stand_in import listen, obey, pause, serve, sleep_forever, wanted_port
obey()
port = wanted_port()
up, is_up = os.pipe()
if os.fork() == 0:
    listener = listen(port)
    os.write(is_up, b".")
    os.close(is_up)
    serve(listener)
if os.fork() == 0:
    os.close(is_up)
    sleep_forever()  # esbuild, a bundler, a worker: of no use alone
os.close(is_up)
os.read(up, 1)
while not os.path.exists("leave"):
    pause(0.01)
os._exit(0)
"""


def test_what_is_left_of_a_tree_is_swept_when_nobody_serves(servers: Servers) -> None:
    port = free_port()
    server = servers.start("web", *script(servers.project, "remainder", REMAINDER), port=port)
    leader = process(server["pid"])
    listener = process(pid_at(server["url"]))
    (helper,) = wait_until(lambda: [one for one in leader.children() if one != listener])
    (servers.project / "leave").touch()
    wait_until(lambda: not alive(leader))
    assert servers.find("web")["state"] == "ready"
    listener.kill()
    servers.state_becomes("web", "crashed")
    assert not alive(helper)
    servers.devsup("stop", "web")
    servers.nothing_is_left(port)


def test_who_is_above_a_process_ends_at_one_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    me, parent = os.getpid(), os.getppid()
    assert parent in tree.above(me)
    process = system.process

    def hidden(pid: int) -> system.ProcessInfo | None:
        if pid == parent:
            raise PermissionError
        return process(pid)

    monkeypatch.setattr(system, "process", hidden)
    assert tree.above(me) == {parent}

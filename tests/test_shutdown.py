"""What a stop does to a tree, in which order, and that it reports what it saw and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from devsup import identity, shutdown, system
from devsup import tree as trees
from devsup.tree import Tree
from tests.serving import LINUX_ONLY, Servers, alive, pid_at, process, script
from tests.support import devsup_argv, free_port, hear, is_listening, processes_of, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from devsup.models import Identity
    from tests.support import Devsup, DevsupPopen, Spawn, StandIn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


WAYS = pytest.mark.parametrize("way", ["by its guard", "without a guard"])


def lose_guard(way: str, server: dict[str, Any]) -> None:
    """Kill the guard where the test is about a stop without one."""
    if way == "without a guard":
        guard = process(server["guard_pid"])
        guard.kill()
        wait_until(lambda: not alive(guard))


# -- how long it takes -----------------------------------------------------------------------------


@WAYS
def test_a_stop_is_over_when_everything_has_ended(servers: Servers, way: str) -> None:
    """The grace is a limit, not a pause."""
    port = free_port()
    server = servers.stand_in("web", "npm_like", port=port)
    lose_guard(way, server)
    began = time.monotonic()
    result = servers.stop("web", "--grace", "40")
    assert time.monotonic() - began < 20
    assert (result["outcome"], result["signals"], result["escalated"]) == ("stopped", ["SIGTERM"], False)
    assert (result["survivors"], result["left_running"], result["port_free"]) == ([], [], True)
    assert result["ms"] < 20_000
    servers.nothing_is_left(port)


@WAYS
def test_who_ignores_term_has_the_grace_and_no_more(servers: Servers, way: str) -> None:
    port = free_port()
    server = servers.stand_in("web", "stubborn", port=port)
    lose_guard(way, server)
    result = servers.stop("web", "--grace", "0.7")
    assert (result["outcome"], result["signals"]) == ("stopped", ["SIGTERM", "SIGKILL"])
    assert (result["escalated"], result["survivors"], result["port_free"]) == (True, [], True)
    assert 700 <= result["ms"] < 10_000
    if way == "by its guard":
        assert servers.find("web")["signal"] == signal.SIGKILL
    servers.nothing_is_left(port)


def test_without_any_grace_the_kill_follows_at_once(servers: Servers) -> None:
    port = free_port()
    servers.stand_in("web", "stubborn", port=port)
    result = servers.stop("web", "--grace", "0")
    assert (result["signals"], result["escalated"]) == (["SIGTERM", "SIGKILL"], True)
    servers.nothing_is_left(port)


SLOW = """
import os
from stand_in import listen, on, pause, serve, wanted_port

def tidy():
    pause(0.5)
    open("tidied", "w").close()
    os._exit(0)

on(15, tidy)
serve(listen(wanted_port()))
"""


def test_who_tidies_up_within_the_grace_is_left_to_do_it(servers: Servers) -> None:
    port = free_port()
    servers.start("web", *script(servers.project, "slow", SLOW), port=port)
    result = servers.stop("web")
    assert (result["signals"], result["escalated"]) == (["SIGTERM"], False)
    assert result["ms"] >= 500
    assert (servers.project / "tidied").exists()
    assert servers.find("web")["exit_code"] == 0
    servers.nothing_is_left(port)


CROWD = """
import os
from stand_in import listen, on, pause, serve, sleep_forever, wanted_port
listener = listen(wanted_port())
for number in range(100):
    if os.fork() == 0:
        listener.close()
        if number % 5 == 0:
            os.setsid()
        on(15, lambda: (pause(0.3), os._exit(0)))
        sleep_forever()
on(15, lambda: os._exit(0))
serve(listener)
"""


@pytest.mark.parametrize("descriptors", [24, 1024])
def test_a_crowd_is_ended_also_with_few_descriptors(servers: Servers, descriptors: int) -> None:
    """One to wait on each process would be more than there are, and then nobody could be signalled."""
    port = free_port()
    args = servers.start_args("web", *script(servers.project, "crowd", CROWD), port=port)
    few = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
    assert servers.run(*few, *devsup_argv(*args)).data["server"]["state"] == "ready"
    wait_until(lambda: len(servers.members("web")) == 101)
    result = servers.stop("web", "--grace", "20")
    assert (result["outcome"], result["signals"], result["survivors"]) == ("stopped", ["SIGTERM"], [])
    assert 300 <= result["ms"] < 15_000
    servers.nothing_is_left(port)


# -- in which order --------------------------------------------------------------------------------

COUNTING = """
import os, signal
from stand_in import listen, on, pause, serve, sleep_forever, wanted_port

def note():
    with open(f"terms.{name}", "a") as file:
        file.write("T")
    pause(0.3)  # long enough to hear it twice
    os._exit(0)

on(signal.SIGTERM, note)
here, there = os.pipe()

def member(called, leave=lambda: None):
    global name
    if os.fork() == 0:
        name = called
        leave()
        os.write(there, b".")
        sleep_forever()
    os.read(here, 1)

name = "leader"
member("group", lambda: os.setpgid(0, 0))
member("session", os.setsid)
member("child")
serve(listen(wanted_port()))
"""


@WAYS
def test_everybody_hears_term_once(servers: Servers, way: str) -> None:
    """A second SIGTERM means "now!" to many servers, and cuts a clean end short."""
    port = free_port()
    server = servers.start("web", *script(servers.project, "counting", COUNTING), port=port)
    wait_until(lambda: len(servers.members("web")) == 4)
    lose_guard(way, server)
    assert servers.stop("web")["signals"] == ["SIGTERM"]
    heard = {path.suffix[1:]: path.read_text() for path in servers.project.glob("terms.*")}
    assert heard == dict.fromkeys(("leader", "group", "session", "child"), "T")
    servers.nothing_is_left(port)


@LINUX_ONLY
def test_the_leader_is_reaped_last(servers: Servers, devsup_popen: DevsupPopen) -> None:
    """As a zombie it keeps its number: a signal to that group cannot reach a stranger."""
    port = free_port()
    server = servers.stand_in("web", "stubborn", "--child", port=port)
    leader, child = process(server["pid"]), process(pid_at(server["url"]))
    stopping = devsup_popen("stop", "web", "--grace", "40", "--json")
    wait_until(lambda: leader.status() == psutil.STATUS_ZOMBIE)
    # The guard has had every chance to reap it: it has reaped what came after, and looked again.
    started = process(server["guard_pid"]).num_ctx_switches().voluntary
    wait_until(lambda: process(server["guard_pid"]).num_ctx_switches().voluntary > started + 2)
    assert leader.status() == psutil.STATUS_ZOMBIE
    child.kill()
    out, err = stopping.communicate(timeout=120)
    (result,) = servers.answer(stopping, out, err).data["results"]
    assert (result["outcome"], result["signals"]) == ("stopped", ["SIGTERM"])
    assert not leader.is_running()
    servers.nothing_is_left(port)


def test_another_stop_reports_the_same_end(servers: Servers, devsup_popen: DevsupPopen) -> None:
    port = free_port()
    servers.stand_in("web", "stubborn", port=port)
    stops = [devsup_popen("stop", "web", "--grace", "0.5", "--json") for _ in range(2)]
    answers = [servers.answer(stop, *stop.communicate(timeout=120)) for stop in stops]
    results = [answer.data["results"][0] for answer in answers]
    assert sorted(result["outcome"] for result in results) in (
        ["stopped", "stopped_by_other"],
        ["already_stopped", "stopped"],  # the second came when all was over
    )
    told = [result for result in results if result["outcome"] != "already_stopped"]
    assert all(result["signals"] == ["SIGTERM", "SIGKILL"] for result in told)
    assert all((result["escalated"], result["port_free"]) == (True, True) for result in told)
    servers.nothing_is_left(port)


# -- the port --------------------------------------------------------------------------------------


def test_a_port_that_a_stranger_has_too_is_not_free(servers: Servers, stand_in: StandIn) -> None:
    """Ours was on 127.0.0.1, his is on ::1; the stop went well, and the next start would meet him."""
    port = free_port()
    servers.stand_in("web", "web", "--host", "127.0.0.1", port=port)
    stranger = stand_in("web", "--host", "::1", "--port", port)
    wait_until(lambda: is_listening(port, "::1"))
    result = servers.stop("web")
    assert (result["outcome"], result["port_free"]) == ("stopped", False)
    assert not is_listening(port)
    assert stranger.poll() is None
    assert processes_of(servers.home) == []


GIVING = """
import array, os, socket
from stand_in import listen, obey, serve, wanted_port
obey()
listener = listen(wanted_port())
with socket.socket(socket.AF_UNIX) as post:
    post.connect(sys.argv[1])
    handle = array.array("i", [listener.fileno()])
    post.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handle)])
serve(listener)
"""


@WAYS
def test_a_socket_that_outlives_the_tree_is_reported(servers: Servers, way: str) -> None:
    """Given to a process that is none of ours: the port stays taken, and a stop must not say otherwise."""
    port = free_port()
    with socket.socket(socket.AF_UNIX) as office:
        address = servers.project.parent / "post"
        office.bind(str(address))
        office.listen()
        command = script(servers.project, "giving", GIVING)
        server = servers.start("web", *command, address, port=port)
        with office.accept()[0] as post:
            _, handles, _, _ = socket.recv_fds(post, 1, 1)
        lose_guard(way, server)
        try:
            answer = servers.devsup("stop", "web", "--json")
        finally:
            for handle in handles:
                os.close(handle)
    assert (answer.code, answer.error["code"], answer.error["retryable"]) == (8, "port_held", True)
    (result,) = answer.json["data"]["results"]
    assert (result["outcome"], result["escalated"], result["survivors"]) == ("failed", False, [])
    assert result["port_free"] is False
    servers.devsup("stop", "web")
    servers.nothing_is_left(port)


# -- who does not end ------------------------------------------------------------------------------

#: SIGKILL that does not work, as with a process that waits for a dead disk: no test can make one.
DEAF = """
import sys
from devsup import identity, shutdown, system
from devsup.__main__ import main
shutdown.KILL_BUDGET = 0.2
identity.signal = lambda who, signum: True
main(sys.argv[1:])
"""


def test_who_survives_sigkill_is_named_and_stays_listed(servers: Servers, spawn: Spawn) -> None:
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    lose_guard("without a guard", server)
    powerless = spawn(DEAF, "stop", "web", "--grace", "0.1", "--json", cwd=servers.project)
    out, err = powerless.communicate(timeout=120)
    answer = servers.answer(powerless, out, err)
    (result,) = answer.json["data"]["results"]
    assert answer.json["error"]["code"] == "survivors"
    assert (result["outcome"], result["signals"]) == ("failed", ["SIGTERM", "SIGKILL"])
    assert [one["pid"] for one in result["survivors"]] == [server["pid"]]
    assert "web.py" in result["survivors"][0]["command"]
    assert result["port_free"] is False
    (listed,) = servers.listed()
    assert listed["pid"] == server["pid"]
    assert servers.stop("web")["outcome"] == "stopped"
    servers.nothing_is_left(port)


SLEEPER = "import sys; print('up', flush=True); sys.stdin.read()"


def test_a_pid_that_was_given_away_is_not_signalled(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the tree and the signal a process may end, and another get its pid."""
    stranger = spawn(SLEEPER)
    assert hear(stranger) == "up\n"
    who = identity.of(stranger.pid)
    assert who is not None
    tree = Tree("nobody", who.replace(ticks=who.ticks - 1))
    info = system.process(stranger.pid)
    assert info is not None
    looks = iter([[info.replace(ticks=info.ticks - 1)]])
    monkeypatch.setattr(trees, "members", lambda *_, **__: next(looks, []))
    ended = shutdown.end(tree, grace=0.1)
    assert ended.signals == ["SIGTERM"]
    stranger.communicate(timeout=30)
    assert stranger.returncode == 0  # it ended when it was told to, not by a signal


# -- who was forgotten -----------------------------------------------------------------------------

TWO_LOOKS = """
import os
from stand_in import listen, on, serve, sleep_forever, wanted_port
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sleep_forever()
    os._exit(0)
os.wait()
on(15, lambda: os._exit(0))
serve(listen(wanted_port()))
"""


@pytest.mark.parametrize("without", ["subreaper", "subreaper,children_file"])
def test_who_left_the_tree_unseen_is_found_by_its_marker(servers: Servers, without: str) -> None:
    """Without a subreaper a daemon goes to process 1, and nothing but the marker leads to it."""
    port = free_port()
    environment = {"DEVSUP_WITHOUT": without}
    command = script(servers.project, "two", TWO_LOOKS)
    server = servers.start("web", *command, port=port, env=environment)
    daemon = next(one for one in servers.members("web") if one.pid != server["pid"])
    assert daemon.ppid() not in {server["pid"], server["guard_pid"]}
    result = servers.stop("web", env=environment)
    assert (result["outcome"], result["signals"], result["survivors"]) == ("stopped", ["SIGTERM"], [])
    assert not alive(daemon)
    servers.nothing_is_left(port)


#: Higher than any number that a system gives to a process.
NOBODY = 2**31 - 1


@pytest.mark.parametrize("new", [True, False])
def test_who_is_below_nobody_is_left_only_in_a_new_session(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    """Born after the TERM and seen only by the look that proves the end: he may come from an old session."""
    leader, late = spawn(SLEEPER), spawn(SLEEPER)
    assert [hear(one) for one in (leader, late)] == ["up\n"] * 2
    who = identity.of(leader.pid)
    infos = [system.process(one.pid) for one in (leader, late)]
    assert who is not None
    first, found = [info.replace(sid=info.pid) for info in infos if info is not None]
    found = found if new else found.replace(sid=NOBODY)
    termed: list[int] = []
    send = identity.signal

    def members(_: Tree, *, full: bool) -> list[system.ProcessInfo]:
        if not termed:
            return [] if full else [first]
        return [found] if full and late.poll() is None else []

    def signal_one(one: Identity, signum: int) -> bool:
        termed.extend([one.pid] if signum == signal.SIGTERM else [])
        return send(one, signum)

    monkeypatch.setattr(trees, "members", members)
    monkeypatch.setattr(identity, "signal", signal_one)
    monkeypatch.setattr(system, "now_ticks", lambda: 0)  # all that is new was born after the TERM
    ended = shutdown.end(Tree("nobody", who, parent=leader.pid), grace=20)
    assert (ended.signals, ended.survivors) == (["SIGTERM"], [])
    assert termed == ([leader.pid] if new else [leader.pid, late.pid])
    assert [one.pid for one in ended.left_running] == ([late.pid] if new else [])


def test_a_session_that_the_first_look_has_missed_is_no_way_out(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may leave out a child while another one ends."""
    leader, missed = spawn(SLEEPER), spawn(SLEEPER)
    assert [hear(one) for one in (leader, missed)] == ["up\n"] * 2
    who, old = identity.of(leader.pid), system.process(missed.pid)
    assert who is not None
    assert old is not None
    wait_until(lambda: system.now_ticks() > old.ticks + 1)
    born = spawn(SLEEPER)
    assert hear(born) == "up\n"
    termed: list[int] = []
    send = identity.signal

    def members(_: Tree, *, full: bool) -> list[system.ProcessInfo]:
        del full
        there = [leader] if not termed else [missed, born]
        infos = [system.process(one.pid) for one in there if one.poll() is None]
        homes = {leader.pid: leader.pid}  # the others have one session
        return [info.replace(sid=homes.get(info.pid, missed.pid)) for info in infos if info is not None]

    def signal_one(one: Identity, signum: int) -> bool:
        termed.extend([one.pid] if signum == signal.SIGTERM else [])
        return send(one, signum)

    monkeypatch.setattr(trees, "members", members)
    monkeypatch.setattr(trees, "above", lambda _: {os.getpid()})
    monkeypatch.setattr(identity, "signal", signal_one)
    monkeypatch.setattr(system, "now_ticks", lambda: old.ticks)
    ended = shutdown.end(Tree("nobody", who, parent=os.getpid()), grace=20)
    assert (ended.signals, ended.survivors, ended.left_running) == (["SIGTERM"], [], [])
    assert termed == [leader.pid, missed.pid, born.pid]


def test_a_stop_of_what_has_ended_changes_nothing(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    servers.stop("web")
    for target in ("web", server["pid"], f":{port}"):
        again = servers.stop(target)
        assert (again["outcome"], again["signals"], again["survivors"]) == ("already_stopped", [], [])
    servers.nothing_is_left(port)


def test_a_crashed_server_leaves_nothing_of_its_tree(servers: Servers) -> None:
    """Its leader was killed while it started: what it had begun to serve is no server."""
    port = free_port()
    answer = servers.try_start(
        "web", *server_argv("npm_like", "--script", "web", "--delay", "60"), port=port, flags=["--no-wait"]
    )
    server = answer.data["server"]
    wait_until(lambda: len(servers.members("web")) == 3)
    os.kill(server["pid"], signal.SIGKILL)
    assert servers.state_becomes("web", "crashed")["signal"] == signal.SIGKILL
    servers.devsup("stop", "web")
    servers.nothing_stays(port)


def test_the_kept_are_told_apart_from_the_ended_by_where_they_are(servers: Servers) -> None:
    """A watchman in the server's own session was not detached, and goes with it."""
    code = """
import os
from stand_in import listen, obey, serve, start, wanted_port
obey()
os.symlink(os.path.realpath(sys.executable), "watchman")
start([os.path.abspath("watchman"), "-ISc", "import signal; signal.pause()"], quiet=True)
serve(listen(wanted_port()))
"""
    port = free_port()
    servers.start("web", *script(servers.project, "own", code), port=port)
    assert len(servers.members("web")) == 2
    assert servers.stop("web")["left_running"] == []
    servers.nothing_is_left(port)

"""What a project file asks of a guard: when a server is ready, whether it is well, how it is ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from devsup import readiness, shutdown
from devsup.guard.printed import Printed
from devsup.models import State
from devsup.readiness import CONNECTED, Answer, Probe
from devsup.system import listeners
from tests.racing import PATIENCE, World
from tests.serving import GOING, pid_at, process, script
from tests.support import free_port, is_listening, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from devsup.models import Server

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes"),
    pytest.mark.timeout(300),
]

#: Answers what the file `status` says, 200 without one; never answers while it says `hang`.
MOODY = """
import os, signal
from stand_in import answer, listen, obey, out, serve, wanted_port

def reply(method, path):
    with open("asked", "a") as asked:
        asked.write(".")
    text = open("status").read() if os.path.exists("status") else "200"
    return None if text == "hang" else (int(text), {}, "pid %d" % os.getpid())

obey()
listener = listen(wanted_port())
out("listening")
serve(listener, answer=reply)
"""


class Wishful:
    """A world whose project file says what its app `web` wants."""

    def __init__(self, world: World) -> None:
        self.world = world

    def write(self, settings: str, command: list[str]) -> None:
        """Write the file."""
        words = ", ".join(f'"{word}"' for word in command)
        text = f"[apps.web]\ncommand = [{words}]\n{settings}\n"
        (self.world.project / "devsup.toml").write_text(text)

    def start(self, port: int | None, **options: Any) -> Server:
        """Start the app."""
        world = self.world
        return world.devsup.start(
            "web", port=port, environ=world.environment, **({"timeout": PATIENCE} | options)
        ).server

    def answers(self, status: str) -> None:
        """Have `MOODY` answer that; a file that is just being written it would read as no number."""
        new = self.world.project / "status.new"
        new.write_text(status)
        new.rename(self.world.project / "status")

    def state(self) -> State:
        """Return what `list` shows of it."""
        (server,) = self.world.list()
        return server.state

    def reasons(self, type_: str) -> list[str | None]:
        """Return the reasons of its events of one type."""
        return [one.reason for one in self.world.registry.events() if one.type == type_]

    def stop(self) -> dict[str, Any]:
        """Stop it; nothing is left."""
        (result,) = self.world.devsup.stop(["web"]).results
        assert result.error is None, result
        wait_until(lambda: not self.world.processes(), PATIENCE)
        return result.asdict()


@pytest.fixture
def wishful(temporary: Path, home: Path) -> Iterator[Wishful]:
    assert home == temporary / "home"
    world = World(temporary)
    yield Wishful(world)
    world.close()


# -- health --------------------------------------------------------------------------------------------

HEALTHY = 'ready = {http = "/", status = 200}\nhealth = {interval = "100ms", restart = RESTART}'


def test_a_server_that_answers_wrongly_is_unhealthy_until_it_answers_well(wishful: Wishful) -> None:
    world = wishful.world
    wishful.write(HEALTHY.replace("RESTART", "false"), script(world.project, "moody", MOODY))
    first = wishful.start(world.port)
    wishful.answers("500")
    wait_until(lambda: wishful.reasons("unhealthy"), PATIENCE)
    assert wishful.reasons("unhealthy") == ["3 checks failed: it answers 500, not 200"]
    assert wishful.state() is State.UNHEALTHY
    found = wishful.start(world.port)
    assert (found.state, found.url) == (State.UNHEALTHY, first.url)
    wishful.answers("200")
    wait_until(lambda: wishful.state() is State.READY, PATIENCE)
    (server,) = world.list()
    assert (server.pid, server.url, len(wishful.reasons("ready"))) == (first.pid, first.url, 2)
    wishful.stop()


def test_an_unhealthy_server_is_run_again_where_that_is_wanted(wishful: Wishful) -> None:
    world = wishful.world
    wishful.write(HEALTHY.replace("RESTART", "true"), script(world.project, "moody", MOODY))
    first = wishful.start(world.port)
    wishful.answers("503")
    wait_until(lambda: wishful.reasons("restarted"), PATIENCE)
    wishful.answers("200")
    again = world.devsup.wait("web", timeout=PATIENCE).server
    assert again.pid != first.pid
    assert wishful.reasons("restarted")[0] == "unhealthy: it answers 503, not 200"
    wishful.stop()


def test_a_stop_during_the_restart_of_an_unhealthy_server_wins(wishful: Wishful) -> None:
    """It is claimed when the guard has already ended the tree and is about to begin the next run."""
    world = wishful.world
    wishful.write(HEALTHY.replace("RESTART", "true"), script(world.project, "moody", MOODY))
    gate = world.gate("guard", "Book.begin_generation > FileLock._open: open")
    arguments = ["start", "web", "--port", str(world.port), "--json"]
    assert world.begin_with(arguments, plan=[gate.plan]).end().code == 0
    wishful.answers("500")
    gate.reached()
    stop = world.begin("stop")
    wait_until(lambda: wishful.reasons("stopping"), PATIENCE)
    gate.go()
    assert stop.end().data["results"][0]["outcome"] == "stopped"
    wait_until(lambda: not world.processes(), PATIENCE)
    assert world.registry.rows() == []


def _turns(guard: int) -> int:
    """Return how often a guard turns in two seconds: where it looks for a listener, 20 times in each."""
    before = process(guard).num_ctx_switches().voluntary
    time.sleep(2)
    return process(guard).num_ctx_switches().voluntary - before


def test_a_server_that_has_lost_its_listener_is_not_checked_and_costs_no_turns(wishful: Wishful) -> None:
    """There is nobody to ask: a check that stayed due would have the guard turn without a pause."""
    world = wishful.world
    wishful.write(HEALTHY.replace("RESTART", "false"), script(world.project, "going", GOING))
    server = wishful.start(world.port)
    process(pid_at(server.url)).kill()
    wait_until(lambda: wishful.reasons("unhealthy"), PATIENCE)
    assert wishful.reasons("unhealthy") == ["nothing listens any more"]
    assert server.guard_pid is not None
    assert _turns(server.guard_pid) < 250
    (world.project / "again").touch()
    wait_until(lambda: wishful.state() is State.READY, PATIENCE)
    wishful.stop()


def test_a_server_that_has_lost_its_listener_is_run_again_where_that_is_wanted(wishful: Wishful) -> None:
    world = wishful.world
    wishful.write(HEALTHY.replace("RESTART", "true"), script(world.project, "going", GOING))
    first = wishful.start(world.port)
    process(pid_at(first.url)).kill()
    wait_until(lambda: wishful.reasons("restarted"), PATIENCE)
    assert world.devsup.wait("web", timeout=PATIENCE).server.pid != first.pid
    assert wishful.reasons("restarted") == ["unhealthy: nothing listens any more"]
    wishful.stop()


def test_a_check_without_a_path_is_a_connection() -> None:
    """A server that speaks no HTTP is not spoken to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        (listener,) = listeners(server.getsockname()[1])
        probe = Probe(listener, None, whole_body=False)
        try:
            assert wait_until(probe.step) == Answer(CONNECTED)
            accepted, address = server.accept()
            with accepted:
                assert address[1] == probe.local_port
                accepted.setblocking(False)
                with pytest.raises(BlockingIOError):
                    accepted.recv(1)
        finally:
            probe.close()


# -- readiness -----------------------------------------------------------------------------------------


def test_a_line_is_found_whatever_pieces_it_comes_in(temporary: Path) -> None:
    log = temporary / "log"
    printed = Printed(str(log), r"^compiled in \d+ ms$")
    assert not printed.look()
    with log.open("ab", buffering=0) as file:
        for piece in (b"not compiled in 3 ms, but\ncomp", b"\x1b[32miled in \x1b[0m", b"12 ms\nmore\n"):
            assert not printed.look()
            file.write(piece)
    assert printed.look()
    log.write_text("")
    assert printed.look()  # once is enough


def test_what_is_no_expression_is_looked_for_as_it_stands(temporary: Path) -> None:
    log = temporary / "log"
    log.write_text("ready (at last\n")
    assert Printed(str(log), "(at").look()


SLOW = """
import os
from stand_in import listen, obey, out, pause, serve, wanted_port
obey()
listener = listen(wanted_port())
while not os.path.exists("go"):
    pause(0.01)
out("compiled")
serve(listener)
"""


def test_a_server_is_ready_when_it_listens_and_has_printed_the_line(wishful: Wishful) -> None:
    world = wishful.world
    wishful.write('ready = {log = "^compiled$"}', script(world.project, "slow", SLOW))
    assert wishful.start(world.port, wait=False).state is State.STARTING
    wait_until(lambda: is_listening(world.port), PATIENCE)
    time.sleep(0.3)  # by its socket alone it would be ready after 60 ms
    assert wishful.state() is State.STARTING
    (world.project / "go").touch()
    assert world.devsup.wait("web", timeout=PATIENCE).server.state is State.READY
    wishful.stop()


def test_a_command_that_listens_nowhere_is_up_when_it_has_printed_the_line(wishful: Wishful) -> None:
    world = wishful.world
    command = ["/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; echo watching; sleep 1000"]
    wishful.write('ready = {log = "watching"}', command)
    assert wishful.start(None, wait=False).state is State.STARTING
    time.sleep(1.3)  # without the line it would be running after a second
    assert wishful.state() is State.STARTING
    (world.project / "go").touch()
    server = world.devsup.wait("web", timeout=PATIENCE).server
    assert (server.state, server.ready_at is not None) == (State.RUNNING, True)
    assert wishful.reasons("ready") == ["log"]
    wishful.stop()


def test_a_command_that_went_to_the_background_and_has_not_printed_the_line_costs_no_turns(
    wishful: Wishful,
) -> None:
    wishful.write('ready = {log = "watching"}', ["/bin/sh", "-c", "sleep 1000 & exit 0"])
    server = wishful.start(None, wait=False)
    assert server.guard_pid is not None
    time.sleep(2.5)  # a leader's end is judged for two seconds
    assert _turns(server.guard_pid) < 250
    assert wishful.state() is State.STARTING
    wishful.stop()


def test_only_the_status_that_is_asked_for_counts(wishful: Wishful) -> None:
    world = wishful.world
    wishful.answers("404")
    wishful.write('ready = {http = "/health", status = 200}', script(world.project, "moody", MOODY))
    assert wishful.start(world.port, wait=False).state is State.STARTING
    # Asked again, so the first answer was heard and did not count.
    asked = world.project / "asked"
    wait_until(lambda: asked.exists() and asked.stat().st_size > 1, PATIENCE)
    assert wishful.state() is State.STARTING
    wishful.answers("200")
    assert world.devsup.wait("web", timeout=PATIENCE).server.state is State.READY
    wishful.stop()


PROXY = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_port_counts_whoever_has_it_where_the_file_says_so(
    wishful: Wishful, spawn: Any, guarded: bool
) -> None:
    """A container's proxy is nobody's child: it is found, never signalled, and no stop fails by it."""
    world, port = wishful.world, free_port()
    wishful.write('ready = {tcp = true, owner = "any"}', ["/bin/sleep", "1000"])
    assert wishful.start(port, wait=False).state is State.STARTING
    proxy = spawn(PROXY, port, env={"DEVSUP_HOME": "/nowhere"})
    server = world.devsup.wait("web", timeout=PATIENCE).server
    assert (server.state, server.port, server.url) == (State.READY, port, f"http://127.0.0.1:{port}")
    assert server.pid != proxy.pid
    if not guarded:
        world.kill_guard()
    result = wishful.stop()
    assert (result["port_free"], result["survivors"]) == (False, [])
    assert proxy.poll() is None
    proxy.kill()


# -- the end -------------------------------------------------------------------------------------------

#: Ends by SIGINT alone, and leaves a process in a session of its own.
PICKY = """
import os, signal, sys, time
from stand_in import listen, serve, wanted_port
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
if os.fork() == 0:
    os.setsid()
    os.execv(sys.argv[3], [sys.argv[3], "1000"])
serve(listen(wanted_port()))
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_server_is_ended_as_its_file_says(wishful: Wishful, guarded: bool) -> None:
    """By its guard, and by a stop where that has died: the signal, the grace, and who is left running."""
    world = wishful.world
    kept = world.project / "kept-daemon"
    kept.symlink_to("/bin/sleep")
    wishful.write(
        'stop = {signal = "SIGINT", grace = "20s", keep = ["kept-daemon"]}',
        [*script(world.project, "picky", PICKY), "--port", str(world.port), str(kept)],
    )
    wishful.start(world.port)
    if not guarded:
        world.kill_guard()
    (result,) = world.devsup.stop(["web"]).results
    assert (result.error, result.signals, result.escalated) == (None, ["SIGINT"], False)
    (left,) = result.left_running
    assert left.command.startswith(str(kept))
    os.kill(left.pid, signal.SIGKILL)
    wait_until(lambda: not world.processes(), PATIENCE)


def test_an_explicit_grace_wins(wishful: Wishful) -> None:
    world = wishful.world
    code = PICKY.replace("lambda *_: os._exit(0)", "signal.SIG_IGN").replace("if os.fork() == 0", "if False")
    wishful.write(
        'stop = {signal = "SIGINT", grace = "50s"}',
        [*script(world.project, "stubborn", code), "--port", str(world.port)],
    )
    wishful.start(world.port)
    began = time.monotonic()
    (result,) = world.devsup.stop(["web"], grace=0.2).results
    assert (result.error, result.signals, result.escalated) == (None, ["SIGINT", "SIGKILL"], True)
    assert time.monotonic() - began < 40
    wait_until(lambda: not world.processes(), PATIENCE)


@pytest.mark.parametrize(
    ("policy", "first"),
    [
        ({}, signal.SIGTERM),
        ({"stop_signal": "SIGINT"}, signal.SIGINT),
        ({"stop_signal": "SIG_DFL"}, signal.SIGTERM),
    ],
)
def test_a_job_of_another_version_is_ended_in_any_case(policy: dict[str, Any], first: signal.Signals) -> None:
    assert shutdown.manner(policy, {}).first is first


def test_a_tls_server_is_asked_for_the_status_by_the_helper() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (listener,) = listeners(server.getsockname()[1])
    assert readiness.tls_helper_argv("python", listener, "/")[-1] == "any"
    assert readiness.tls_helper_argv("python", listener, "/", status=204)[-1] == "204"

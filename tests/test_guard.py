"""The guard: what its server gets from it, what it costs, and what becomes of one when the other dies."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from devsup.guard.table import TRANSITIONS, Happening
from devsup.models import ENDED_STATES, State
from tests.serving import LINUX_ONLY, Servers, alive, has_terminal, pid_at, process, script
from tests.support import (
    ROOT,
    devsup_argv,
    fetch,
    free_port,
    server_argv,
    wait_until,
    with_changes,
)

if TYPE_CHECKING:
    from tests.support import Devsup, Spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


# -- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("happening", Happening)
def test_every_state_answers_every_happening(state: State, happening: Happening) -> None:
    follows = TRANSITIONS[state][happening]
    assert follows is None or isinstance(follows, State)


@pytest.mark.parametrize("state", sorted(ENDED_STATES))
def test_nothing_leaves_an_end(state: State) -> None:
    assert set(TRANSITIONS[state].values()) == {None}


def test_every_state_leads_to_an_end() -> None:
    """Else a server could be stuck for ever."""
    for state in State:
        reached = {state}
        while more := {after for one in reached for after in TRANSITIONS[one].values() if after} - reached:
            reached |= more
        assert reached & ENDED_STATES


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED_STATES])
def test_whatever_it_does_it_can_be_stopped(state: State) -> None:
    assert state is State.STOPPING or TRANSITIONS[state][Happening.STOP] is State.STOPPING


# -- what the server gets --------------------------------------------------------------------------

#: A caller with habits of its own, which are not to rub off; then it becomes what its arguments say.
CALLER = """
import os, resource, signal, sys
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR2})
os.umask(0o027)
resource.setrlimit(resource.RLIMIT_NOFILE, (333, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
for number in (3, 17, 29):
    os.dup2(1, number, inheritable=True)
os.execv(sys.argv[1], sys.argv[1:])
"""

#: Only `sh` and `cat` look: Python would ignore and catch signals itself.
LOOK = 'cat /proc/self/status; umask; ulimit -Sn; ulimit -Sc; ls -l /proc/$$/fd; exec "$@"'


@LINUX_ONLY
def test_nothing_of_the_callers_habits_reaches_the_server(servers: Servers, spawn: Spawn) -> None:
    """Default signals and an empty mask; the caller's umask and limits; no descriptor but the log."""
    port = free_port()
    args = servers.start_args("web", "sh", "-c", LOOK, "sh", *server_argv("web"), port=port)
    caller = spawn(CALLER, *devsup_argv(*args), cwd=servers.project)
    out, err = caller.communicate(timeout=50)
    server = servers.answer(caller, out, err).data["server"]
    text = servers.log(server)
    masks = dict(re.findall(r"^(Sig\w+|Shd\w+):\s*([0-9a-f]+)$", text, re.MULTILINE))
    assert {name: int(masks[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")} == {
        "SigBlk": 0,
        "SigIgn": 0,
        "SigCgt": 0,
        "SigPnd": 0,
    }
    assert re.search(r"^0*27\n333\n0$", text, re.MULTILINE), text
    descriptors = dict(re.findall(r" (\d+) -> (.+)$", text, re.MULTILINE))
    assert descriptors == {"0": "/dev/null", "1": server["log"], "2": server["log"]}
    servers.stop("web")
    servers.nothing_is_left(port)


@LINUX_ONLY
def test_a_server_has_its_own_session_and_no_terminal(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    told = json.loads(fetch(f"{server['url']}/self")[1])
    assert (told["pid"], told["pgid"], told["sid"]) == (server["pid"],) * 3
    assert told["ppid"] == server["guard_pid"]
    assert told["cwd"] == str(servers.project)
    assert not has_terminal(server["pid"])
    flags = re.search(r"^flags:\s+(\d+)$", Path(f"/proc/{server['pid']}/fdinfo/1").read_text(), re.MULTILINE)
    assert flags
    assert int(flags[1], 8) & os.O_APPEND
    servers.stop("web")
    servers.nothing_is_left(port)


def test_the_environment_is_the_callers_with_few_changes(servers: Servers) -> None:
    """Nothing is changed that the design does not name: colours, agents and telemetry are the user's own."""
    port = free_port()
    caller = {"COLOUR": "bläu", "CLAUDECODE": "1", "LC_ALL": "C.UTF-8", "EMPTY": ""}
    server = servers.start(
        "web", *server_argv("web"), port=port, env=caller, flags=["--env", "COLOUR=red", "--env", "NEW=a=b"]
    )
    told = json.loads(fetch(f"{server['url']}/self")[1])["environ"]
    marker = json.loads(told.pop("DEVSUP_MARKER"))
    expected = with_changes({**caller, "COLOUR": "red", "NEW": "a=b", "PORT": str(port), "BROWSER": "none"})
    assert told == expected
    assert marker == {
        "home": str(servers.home),
        "project": str(servers.project),
        "session": "dev_server_web",
        "id": server["id"],
        "generation": server["generation"],
    }
    servers.stop("web")
    servers.nothing_is_left(port)


@LINUX_ONLY
@pytest.mark.xfail(strict=True, reason="`launch_guard` hands on the locale that Python gave the command")
def test_a_caller_without_a_locale_has_a_server_without_one(servers: Servers) -> None:
    port = free_port()
    bare: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name[:3] in {"LC_", "LAN"})
    server = servers.start(
        "web", "sh", "-c", 'env; exec "$@"', "sh", *server_argv("web"), port=port, env=bare
    )
    text = servers.log(server)
    servers.stop("web")
    assert "LC_CTYPE" not in text


def test_no_value_of_the_environment_is_written_or_shown(servers: Servers) -> None:
    port = free_port()
    given, inherited = "s3cret-of-a-flag", "s3cret-of-the-caller"
    server = servers.start(
        "web",
        *server_argv("web"),
        port=port,
        env={"INHERITED": inherited},
        flags=["--env", f"GIVEN={given}"],
    )
    told = json.loads(fetch(f"{server['url']}/self")[1])["environ"]
    assert (told["GIVEN"], told["INHERITED"]) == (given, inherited)
    answers = [
        servers.devsup(*words, "--json").out for words in (["list"], ["status", "web"], ["logs", "web"])
    ]
    servers.devsup("restart", "web")
    guard = process(servers.find("web")["guard_pid"])
    assert "s3cret" not in " ".join([*guard.cmdline(), guard.name(), *answers, json.dumps(server)])
    files = [path for path in servers.home.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert b"s3cret" not in path.read_bytes(), path
    servers.stop("web")
    servers.nothing_is_left(port)


def test_a_listing_of_processes_shows_what_a_guard_guards(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    guard = process(server["guard_pid"])
    assert guard.cmdline()[-1] == f"dev_server_web of {servers.project}"
    if sys.platform == "linux":
        assert guard.name() == "devsup web"
    assert guard.cwd() == "/"  # it keeps no folder from being unmounted
    servers.stop("web")


def test_a_restart_has_the_environment_of_the_start(servers: Servers) -> None:
    """From the guard's memory: the caller of the restart knows nothing of it."""
    port = free_port()
    server = servers.start("web", *server_argv("web"), port=port, flags=["--env", "TOKEN=of the start"])
    again = servers.devsup("restart", "web", "--json", env={"TOKEN": "of the restart"}).data["server"]
    assert (again["id"], again["guard_pid"]) == (server["id"], server["guard_pid"])
    assert again["generation"] > server["generation"]
    told = json.loads(fetch(f"{again['url']}/self")[1])["environ"]
    assert told["TOKEN"] == "of the start"
    assert json.loads(told["DEVSUP_MARKER"])["generation"] == again["generation"]
    servers.stop("web")
    servers.nothing_is_left(port)


# -- what the caller keeps -------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--no-wait"]])
def test_who_reads_the_pipes_of_a_start_gets_their_end_at_once(servers: Servers, flags: list[str]) -> None:
    """An agent's shell tool waits for the end of file: one descriptor in the server holds it up for good."""
    port = free_port()
    args = servers.start_args("web", *server_argv("web"), port=port, flags=flags)
    reading, writing = os.pipe()
    try:
        with subprocess.Popen(
            devsup_argv(*args),
            cwd=servers.project,
            env=with_changes(None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[writing],
        ) as start:
            os.close(writing)
            assert start.wait(50) == 0
            ended = time.monotonic()
            assert start.stdout is not None
            assert start.stderr is not None
            for pipe in (start.stdout.fileno(), start.stderr.fileno(), reading):
                until_end_of_file(pipe, ended + 1.0)
    finally:
        os.close(reading)
    assert pid_at(servers.devsup("wait", "web", "--json").data["server"]["url"])
    servers.stop("web")
    servers.nothing_is_left(port)


def until_end_of_file(pipe: int, deadline: float) -> None:
    """Read to the end of file, which must come before ``deadline``."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        assert poll.poll(max(0.0, deadline - time.monotonic()) * 1e3), "still held open"
        if not os.read(pipe, 65536):
            return


STREAMLESS = """
import os, sys
os.closerange(0, 3)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_caller_without_standard_streams_can_start_a_server(servers: Servers, spawn: Spawn) -> None:
    """As a daemon calls it: the numbers 0 to 2 are free, and whoever opens a file gets them."""
    port = free_port()
    args = servers.start_args("web", *server_argv("web"), port=port)
    caller = spawn(STREAMLESS, *devsup_argv(*args), cwd=servers.project)
    assert caller.wait(50) == 0
    assert servers.find("web")["state"] == "ready"
    servers.stop("web")
    servers.nothing_is_left(port)


# -- the guard's end -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_guard_is_an_orderly_stop(servers: Servers, number: signal.Signals) -> None:
    port = free_port()
    server = servers.stand_in("web", "npm_like", port=port)
    guard = process(server["guard_pid"])
    guard.send_signal(number)
    wait_until(lambda: not alive(guard))
    assert servers.find("web")["state"] == "stopped"
    assert servers.events(server)[-2:] == ["stopping", "stopped"]
    servers.nothing_is_left(port)


def without_guard(servers: Servers, server: dict[str, Any]) -> psutil.Process:
    """Kill the guard of ``server`` and return what is left of it: the server itself."""
    guard, leader = process(server["guard_pid"]), process(server["pid"])
    guard.kill()
    wait_until(lambda: not alive(guard))
    assert alive(leader)
    shown = servers.find("web")
    assert (shown["state"], shown["guard_pid"], shown["pid"]) == ("ready", None, server["pid"])
    return leader


def test_a_server_outlives_its_guard_and_can_be_stopped(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "npm_like", port=port)
    leader = without_guard(servers, server)
    assert pid_at(server["url"])
    result = servers.stop("web")
    assert (result["outcome"], result["signals"], result["port_free"]) == ("stopped", ["SIGTERM"], True)
    assert not alive(leader)
    assert servers.find("web")["state"] == "stopped"
    servers.nothing_is_left(port)


def test_a_start_gives_a_server_a_new_guard(servers: Servers) -> None:
    """It is the same server; only who looks after it is new."""
    port = free_port()
    server = servers.stand_in("web", "npm_like", port=port)
    leader = without_guard(servers, server)
    answer = servers.try_start("web", *server_argv("npm_like"), port=port)
    again = answer.data["server"]
    assert answer.data["reused"] is True
    assert (again["id"], again["pid"], again["url"]) == (server["id"], server["pid"], server["url"])
    assert again["guard_pid"] not in {None, server["guard_pid"]}
    assert any("guard" in note for note in answer.notes)
    guard = process(again["guard_pid"])
    assert servers.stop("web")["outcome"] == "stopped"
    assert not alive(guard)
    assert not alive(leader)
    servers.nothing_is_left(port)


def test_a_new_guard_sees_the_end_of_its_server(servers: Servers) -> None:
    """How it ended nobody can know: it is not the new guard's child."""
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    leader = without_guard(servers, server)
    servers.start("web", *server_argv("web"), port=port)
    leader.kill()
    crashed = servers.state_becomes("web", "crashed")
    assert (crashed["exit_code"], crashed["signal"]) == (None, None)
    servers.devsup("stop", "web")
    servers.nothing_is_left(port)


def test_a_new_guard_restarts_its_server(servers: Servers) -> None:
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    leader = without_guard(servers, server)
    guard = servers.start("web", *server_argv("web"), port=port)["guard_pid"]
    again = servers.devsup("restart", "web", "--json").data["server"]
    assert (again["state"], again["guard_pid"]) == ("ready", guard)
    assert not alive(leader)
    # From now on the server is its own child: it knows how it ends.
    process(again["pid"]).send_signal(signal.SIGKILL)
    assert servers.state_becomes("web", "crashed")["signal"] == signal.SIGKILL
    servers.devsup("stop", "web")
    servers.nothing_is_left(port)


def test_a_new_guard_finds_out_that_nobody_listens_any_more(servers: Servers) -> None:
    """The listener went while nobody looked; the rest of the tree still runs."""
    code = """
import os
from stand_in import listen, obey, serve, sleep_forever, wanted_port
if os.fork() == 0:
    serve(listen(wanted_port()))
sleep_forever()
"""
    port = free_port()
    command = script(servers.project, "deserted", code)
    server = servers.start("web", *command, port=port)
    listener = process(pid_at(server["url"]))
    without_guard(servers, server)
    listener.kill()
    wait_until(lambda: not alive(listener))
    servers.start("web", *command, port=port)
    wait_until(lambda: "unhealthy" in servers.events(server))
    servers.stop("web")
    servers.nothing_is_left(port)


def test_a_restart_without_a_guard_says_what_is_lost(servers: Servers) -> None:
    """The environment was in the guard's memory alone."""
    port = free_port()
    server = servers.start("web", *server_argv("web"), port=port, flags=["--env", "TOKEN=1"])
    leader = without_guard(servers, server)
    answer = servers.devsup("restart", "web", "--json", env={"OWN": "2"})
    again = answer.data["server"]
    assert (again["state"], again["port"]) == ("ready", port)
    assert any("--env" in note for note in answer.notes), answer.notes
    told = json.loads(fetch(f"{again['url']}/self")[1])["environ"]
    assert (told.get("TOKEN"), told["OWN"]) == (None, "2")
    assert not alive(leader)
    servers.stop("web")
    servers.nothing_is_left(port)


# -- a package that goes away ----------------------------------------------------------------------


@pytest.fixture
def removed(servers: Servers, temporary: Path) -> dict[str, Any]:
    """Start a server by a copy of devsup, and remove that copy; return the server."""
    folder = temporary / "copy"
    shutil.copytree(ROOT / "devsup", folder / "devsup")
    environment = {"PYTHONPATH": str(folder)}
    server = servers.start("web", *server_argv("npm_like"), port=free_port(), env=environment)
    assert str(folder) in " ".join(process(server["guard_pid"]).cmdline())
    shutil.rmtree(folder)
    return server


def test_a_guard_stops_its_server_though_its_package_is_gone(
    servers: Servers, removed: dict[str, Any]
) -> None:
    result = servers.stop("web")
    assert (result["outcome"], result["signals"], result["port_free"]) == ("stopped", ["SIGTERM"], True)
    ended = servers.find("web")
    assert (ended["state"], ended["signal"]) == ("stopped", signal.SIGTERM)
    servers.nothing_is_left(removed["port"])


def test_a_guard_tells_of_a_crash_though_its_package_is_gone(
    servers: Servers, removed: dict[str, Any]
) -> None:
    """The wrapper is killed first, then what serves: each is another branch of the guard."""
    listener = process(pid_at(removed["url"]))
    process(removed["pid"]).kill()
    wait_until(lambda: "SIGKILL" in guard_log(servers) or "signal 9" in guard_log(servers))
    assert servers.find("web")["state"] == "ready"
    listener.kill()
    crashed = servers.state_becomes("web", "crashed")
    assert crashed["signal"] == signal.SIGKILL
    assert "Traceback" not in guard_log(servers)
    servers.devsup("stop", "web")
    servers.nothing_is_left(removed["port"])


def test_a_guard_restarts_its_server_though_its_package_is_gone(
    servers: Servers, removed: dict[str, Any]
) -> None:
    again = servers.devsup("restart", "web", "--json").data["server"]
    assert (again["state"], again["guard_pid"]) == ("ready", removed["guard_pid"])
    process(removed["guard_pid"]).terminate()
    servers.state_becomes("web", "stopped")
    assert "Traceback" not in guard_log(servers)
    servers.nothing_stays(removed["port"])


def guard_log(servers: Servers) -> str:
    """Return what the guards of this test have written."""
    return "".join(path.read_text() for path in servers.home.glob("logs/*/*.guard.log"))


# -- what a guard costs ----------------------------------------------------------------------------

#: Each of them would cost a guard more than it may use for all of its own.
HEAVY = {
    "asyncio", "dataclasses", "inspect", "logging", "pathlib", "psutil", "pydantic", "rich", "shutil",
    "socket", "ssl", "subprocess", "tempfile", "threading", "typer", "typing",
}  # fmt: skip


LOADED = """
import json, sys
sys.path.append(sys.argv[1])
import devsup.guard.loop
print(json.dumps([*sys.modules]))
"""


def modules_of_a_guard() -> set[str]:
    """Load what a guard loads, into an interpreter as bare as its own; return what that then has."""
    argv = [sys.executable, "-I", "-S", "-c", LOADED, str(ROOT)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=50)
    return set(json.loads(done.stdout))


@LINUX_ONLY
def test_a_guard_loads_nothing_heavy() -> None:
    assert HEAVY.isdisjoint(modules_of_a_guard())


#: MiB; design.md, "Budgets".
RSS, PRIVATE = 16.0, 7.0


@LINUX_ONLY
def test_a_guard_is_small(servers: Servers) -> None:
    modules_of_a_guard()  # the first one also compiles them
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    servers.devsup("restart", "web")
    text = Path(f"/proc/{server['guard_pid']}/smaps_rollup").read_text()
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    mib = {name: int(value) / 1024 for name, value in fields.items()}
    assert mib["Rss"] <= RSS
    assert mib["Private_Clean"] + mib["Private_Dirty"] <= PRIVATE
    servers.stop("web")


@LINUX_ONLY
def test_guards_sleep_while_nothing_happens(servers: Servers) -> None:
    """Of a ready server, of one that was restarted, of one whose wrapper is gone, of an adopted one."""
    started = {
        "plain": servers.stand_in("plain", "web", port=free_port()),
        "restarted": servers.stand_in("restarted", "web", port=free_port()),
        "leaderless": servers.stand_in("leaderless", "leader_first", "--after", "0", port=free_port()),
        "adopted": servers.stand_in("adopted", "web", port=free_port()),
    }
    servers.devsup("restart", "restarted")
    process(started["adopted"]["guard_pid"]).kill()
    servers.start("adopted", *server_argv("web"), port=started["adopted"]["port"])
    wait_until(lambda: not alive(process(started["leaderless"]["pid"])))
    guards = {name: process(servers.find(name)["guard_pid"]) for name in started}

    def cost() -> dict[str, tuple[float, int]]:
        return {
            name: (sum(guard.cpu_times()[:2]), guard.num_ctx_switches().voluntary)
            for name, guard in guards.items()
        }

    def settled() -> bool:
        before = cost()
        time.sleep(0.3)
        return cost() == before

    wait_until(settled, 20)
    before = cost()
    time.sleep(2.0)  # the very thing that is measured
    after = cost()
    for name in guards:
        cpu, switches = (one - other for one, other in zip(after[name], before[name], strict=True))
        assert cpu <= 0.01, name
        assert switches <= 2, name
    servers.devsup("stop", "--all")
    servers.nothing_is_left()


def sleeps(guard: psutil.Process) -> bool:
    """Tell whether ``guard`` sleeps most of the time; one that spins never does, however busy the machine."""
    seen = 0
    for _ in range(20):
        seen += guard.status() == psutil.STATUS_SLEEPING
        time.sleep(0.01)
    return seen > 10


SECOND_TIME_SILENT = """
import os
from stand_in import listen, obey, serve, sleep_forever, wanted_port
obey()
if os.path.exists("once"):
    sleep_forever()
open("once", "w").close()
serve(listen(wanted_port()))
"""


@LINUX_ONLY
def test_a_guard_sleeps_while_a_restarted_server_does_not_listen(servers: Servers) -> None:
    """The old listener's descriptor is ready for ever: who still waits on it never sleeps again."""
    port = free_port()
    server = servers.start("web", *script(servers.project, "silent", SECOND_TIME_SILENT), port=port)
    assert servers.devsup("restart", "web", "--timeout", "0.5", "--json").code == 6
    assert sleeps(process(server["guard_pid"]))
    servers.stop("web")
    servers.nothing_is_left(port)


BACKGROUND = """
import os
from stand_in import listen, obey, serve, sleep_forever, wanted_port
port = wanted_port()
up, is_up = os.pipe()
if os.fork() == 0:
    os.close(up)
    listener = listen(port)
    if os.fork() == 0:
        listener.close()
        os.close(is_up)
        sleep_forever()
    os.close(is_up)
    serve(listener)
os.close(is_up)
os.read(up, 1)
while not os.path.exists("leave"):
    os.stat(".")
"""


@LINUX_ONLY
def test_a_command_in_the_background_that_stops_serving_is_swept(servers: Servers) -> None:
    """Its leader ended with 0 long ago, its listener now: what is left is of no use to anybody."""
    code = BACKGROUND.replace("    os.stat", "    pause(0.01)\n    os.stat").replace(
        "obey, serve", "pause, serve"
    )
    port = free_port()
    server = servers.start("job", *script(servers.project, "background", code), "--port", port)
    leader, listener = process(server["pid"]), process(pid_at(port))
    (helper,) = listener.children()
    servers.state_becomes("job", "ready")
    (servers.project / "leave").touch()
    wait_until(lambda: not alive(leader))
    listener.kill()
    servers.state_becomes("job", "exited")
    assert not alive(helper)
    servers.devsup("stop", "job")
    servers.nothing_stays(port)


# -- what old kernels and containers lack ----------------------------------------------------------

CAPABILITIES = ("pidfd", "pidfs", "sock_diag", "subreaper", "children_file", "boot_id")


@LINUX_ONLY
@pytest.mark.parametrize("without", [*CAPABILITIES, ",".join(CAPABILITIES)])
def test_a_whole_life_without(servers: Servers, without: str) -> None:
    """Start, list, stop; start, crash: on a daemon of its own session, which needs the most."""
    environment = {"DEVSUP_WITHOUT": without}
    live_and_stop(servers, environment, environment)
    live_and_crash(servers, environment, environment)


@LINUX_ONLY
@pytest.mark.parametrize("without", ["pidfd", "sock_diag,children_file"])
def test_a_guard_lacks_what_its_callers_have(servers: Servers, without: str) -> None:
    """A sandbox within the same scope may refuse a call that others may make: they still know each other."""
    live_and_stop(servers, {"DEVSUP_WITHOUT": without}, {})
    live_and_crash(servers, {"DEVSUP_WITHOUT": without}, {})


def live_and_stop(servers: Servers, guard: dict[str, str], caller: dict[str, str]) -> None:
    """Start a server in the environment ``guard``; look at it and stop it in that of ``caller``."""
    port = free_port()
    server = servers.start("web", *server_argv("daemon_holder"), port=port, env=guard)
    assert (server["state"], server["url"]) == ("ready", f"http://localhost:{port}")
    daemon = process(pid_at(server["url"]))
    listed = servers.devsup("list", "--json", env=caller).data["servers"]
    assert [(one["state"], one["guard_pid"]) for one in listed] == [("ready", server["guard_pid"])]
    result = servers.stop("web", env=caller)
    assert (result["outcome"], result["signals"], result["survivors"]) == ("stopped", ["SIGTERM"], [])
    assert result["port_free"] is True
    assert not alive(daemon)
    servers.nothing_stays(port)  # without a pidfd nobody sees the last moment of a guard


def live_and_crash(servers: Servers, guard: dict[str, str], caller: dict[str, str]) -> None:
    """Start a server in the environment ``guard`` and kill it; look at it in that of ``caller``."""
    port = free_port()
    server = servers.start("web", *server_argv("daemon_holder"), port=port, env=guard)
    daemon = process(pid_at(server["url"]))
    process(server["pid"]).kill()
    wait_until(lambda: "signal 9" in guard_log(servers))
    assert alive(daemon)
    daemon.kill()

    def ends() -> list[tuple[str, int]]:
        listed = servers.devsup("list", "--json", env=caller).data["servers"]
        return [(one["state"], one["signal"]) for one in listed]

    wait_until(lambda: ends() == [("crashed", signal.SIGKILL)])
    servers.devsup("stop", "web", env=caller)
    servers.nothing_stays(port)

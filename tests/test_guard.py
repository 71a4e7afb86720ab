"""What a guard hands on to its server, and that it keeps nothing of its caller."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devsup.guard.table import TRANSITIONS, Happening
from devsup.models import ENDED_STATES, State
from tests.serving import LINUX_ONLY, Servers, has_terminal, pid_at, process
from tests.support import (
    devsup_argv,
    fetch,
    free_port,
    server_argv,
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
    out, err = caller.communicate(timeout=120)
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
    servers.stop("web", "--take-over")  # it is the agent's that the caller says it is
    servers.nothing_is_left(port)


@LINUX_ONLY
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
                until_end_of_file(pipe, ended + 20.0)  # what keeps one open keeps it for good
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

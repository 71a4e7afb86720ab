"""A guard that is told to end, is killed, or loses its own package: its server is never lost."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.serving import Servers, alive, pid_at, process, script
from tests.support import (
    ROOT,
    fetch,
    free_port,
    server_argv,
    wait_until,
)

if TYPE_CHECKING:
    from tests.support import Devsup

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


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


def test_a_server_whose_log_cannot_be_written_is_not_run(servers: Servers) -> None:
    """Nobody has an exit code of what has not run: the reason is said instead, and where to read on."""
    server = servers.start("web", *server_argv("web"))
    log = Path(server["log"])
    in_the_way = log.with_name(log.name.replace(".1.log", ".2.log"))
    in_the_way.mkdir()
    answer = servers.devsup("restart", "web", "--json")
    assert (answer.code, answer.error["code"], answer.error["hint"]) == (5, "exited_early", "devsup why web")
    assert answer.error["message"] == (
        "`dev_server_web` ended before it was ready:"
        f" its log `{in_the_way}` cannot be written: Is a directory"
    )
    story = servers.devsup("why", "web", "--json").data["story"]
    assert any(
        one["text"] == f"was not run: its log `{in_the_way}` cannot be written: Is a directory"
        for one in story
    )
    assert servers.events(server)[-1] == "crashed"
    servers.nothing_is_left(server["port"])


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
    wait_until(lambda: "SIGKILL" in servers.guard_log() or "signal 9" in servers.guard_log())
    assert servers.find("web")["state"] == "ready"
    listener.kill()
    crashed = servers.state_becomes("web", "crashed")
    assert crashed["signal"] == signal.SIGKILL
    assert "Traceback" not in servers.guard_log()
    servers.devsup("stop", "web")
    servers.nothing_is_left(removed["port"])


def test_a_guard_restarts_its_server_though_its_package_is_gone(
    servers: Servers, removed: dict[str, Any]
) -> None:
    again = servers.devsup("restart", "web", "--json").data["server"]
    assert (again["state"], again["guard_pid"]) == ("ready", removed["guard_pid"])
    process(removed["guard_pid"]).terminate()
    servers.state_becomes("web", "stopped")
    assert "Traceback" not in servers.guard_log()
    servers.nothing_stays(removed["port"])

"""A wait ends when the server serves, and a start that has run out of time leaves one to wait for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.serving import GOING, Servers, next_app, pid_at, process, script
from tests.support import fetch, free_port, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


def test_a_wait_is_for_a_server_that_serves(servers: Servers) -> None:
    """Without a listener it does not, whatever its row still says until its guard has noticed."""
    port = free_port()
    server = servers.start("web", *script(servers.project, "going", GOING), port=port)
    process(pid_at(server["url"])).kill()
    wait_until(lambda: servers.find("web")["state"] == "unhealthy")
    answer = servers.devsup("wait", "web", "--timeout", 0.3, "--json")
    assert (answer.code, answer.error["code"]) == (6, "not_ready")
    assert "nothing of `dev_server_web` listens any more" in answer.error["message"]
    assert answer.error["hint"] == "devsup restart web"
    assert answer.json["data"]["server"]["state"] == "unhealthy"
    (servers.project / "again").touch()
    assert servers.devsup("wait", "web", "--json").data["server"]["state"] == "ready"
    assert pid_at(server["url"]) == server["pid"]
    servers.stop("web")
    servers.nothing_stays(port)


def test_a_start_without_time_leaves_a_server_that_can_be_waited_for(servers: Servers) -> None:
    """Its guard has claimed the server when the answer comes; else it would be a dead caller's."""
    port = free_port()
    command = server_argv("web", "--delay", "0.5")
    answer = servers.try_start("web", *command, port=port, flags=["--timeout", "0.001"])
    assert (answer.code, answer.error["code"]) == (6, "not_ready")
    starting = answer.json["data"]["server"]
    assert starting["state"] == "starting"
    assert None not in {starting["pid"], starting["guard_pid"]}
    ready = servers.devsup("wait", "web", "--json").data["server"]
    assert (ready["pid"], ready["state"]) == (starting["pid"], "ready")
    assert fetch(ready["url"])[0] == 200
    servers.stop("web")
    servers.nothing_stays(port)


def test_a_start_finds_its_server_by_any_way_to_say_the_port(servers: Servers) -> None:
    """By the variable, by the flag, in either spelling; another port is told, not obeyed."""
    next_app(servers.project, *server_argv("next_like"))
    port, other = free_port(), free_port()
    server = servers.start("web", port=port)
    for words in (["--port", port], [f"--port={port}"], ["-p", port], [f"-p{port}"], []):
        answer = servers.devsup("start", "--json", "--", "npx", "next", "dev", *words)
        assert answer.data["reused"], words
        assert answer.data["server"]["pid"] == server["pid"]
        assert answer.notes == [], words
    answer = servers.devsup("start", "--json", "--", "npx", "next", "dev", "-p", other)
    assert answer.data["server"]["port"] == port
    assert answer.notes == [f"it already runs on port {port}; port {other} was not applied"]
    # A folder has one server, whatever one calls it.
    answer = servers.devsup("start", "other", "--json", "--", "npx", "next", "dev")
    assert answer.data["server"]["pid"] == server["pid"]
    assert answer.notes == [f"`{servers.project}` already has this server, as `web` of `{servers.project}`"]
    servers.stop("web")
    servers.nothing_stays(port)

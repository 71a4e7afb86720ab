"""A whole life of a server on kernels and in containers that lack something."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serving import LINUX_ONLY, Servers, alive, pid_at, process
from tests.support import (
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
    wait_until(lambda: "signal 9" in servers.guard_log())
    assert alive(daemon)
    daemon.kill()

    def ends() -> list[tuple[str, int]]:
        listed = servers.devsup("list", "--json", env=caller).data["servers"]
        return [(one["state"], one["signal"]) for one in listed]

    wait_until(lambda: ends() == [("crashed", signal.SIGKILL)])
    servers.devsup("stop", "web", env=caller)
    servers.nothing_stays(port)

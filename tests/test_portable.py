"""What other systems than Linux would run, as far as Linux can tell: the same round through psutil."""

from __future__ import annotations

import os
import signal

from tests.support import Devsup, fetch, free_port, processes_of, server_argv, wait_until

PORTABLE = {"DEVSUP_SYSTEM": "portable"}


def test_a_whole_round_works_without_anything_of_linux(devsup: Devsup, home: str) -> None:
    """Start, reuse, list, a wrapper whose child serves, stop, a crash: no pidfd, netlink or subreaper."""
    port = free_port()
    command = ("--", *server_argv("npm_like", "--port", port))
    server = devsup("start", "web", "--json", *command, env=PORTABLE).data["server"]
    assert (server["state"], server["port"]) == ("ready", port)
    assert fetch(server["url"])[0] == 200
    assert devsup("start", "web", "--json", *command, env=PORTABLE).data["reused"]
    listed = devsup("list", "--json", env=PORTABLE).data["servers"]
    assert [one["pid"] for one in listed] == [server["pid"]]
    result = devsup("stop", "web", "--json", env=PORTABLE).data["results"][0]
    assert (result["outcome"], result["survivors"], result["port_free"]) == ("stopped", [], True)
    assert processes_of(home) == []

    server = devsup("start", "web", "--json", *command, env=PORTABLE).data["server"]
    for process in devsup("status", "web", "--json", env=PORTABLE).data["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    crashed = wait_until(
        lambda: [
            one
            for one in devsup("list", "--json", env=PORTABLE).data["servers"]
            if one["state"] == "crashed" and one["pid"] == server["pid"]
        ],
        timeout=30,
    )
    assert crashed[0]["signal"] == signal.SIGKILL

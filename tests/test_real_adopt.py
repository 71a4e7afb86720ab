"""The real Next.js, started by hand at a terminal, and taken under the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devsup import system
from tests.real_support import LONG, PATIENCE
from tests.support import fetch, free_port, is_listening, wait_until
from tests.test_adopt import alive, shell

if TYPE_CHECKING:
    from tests.support import Devsup, RealApp

pytestmark = [pytest.mark.real, pytest.mark.timeout(PATIENCE)]


def test_next_that_was_typed_at_a_terminal_is_adopted_guarded_restarted_and_stopped(
    devsup: Devsup, real_app: RealApp
) -> None:
    """By npm, in the background of a shell with another job, which goes on afterwards."""
    folder, port = real_app("web"), free_port()
    with shell(folder, jobs=True) as terminal:
        npm = terminal.job(["npm", "run", "dev", "--", "-p", str(port)], "npm")
        idle = terminal.job(["sleep", "1000"], "idle")
        wait_until(lambda: is_listening(port), LONG)
        [seen] = wait_until(
            lambda: [
                one
                for one in devsup("--json", "list", cwd=folder).data["unmanaged"]
                if one["port"] == port and one["pid"]
            ],
            LONG,
        )
        assert seen["kind"] == "next"
        adopted = devsup("--json", "adopt", f":{port}", cwd=folder, timeout=LONG)
        server = adopted.data["server"]
        assert (server["app"], server["kind"], server["pid"]) == ("web", "next", npm)
        assert any(f"pid {seen['pid']} is a part of" in note for note in adopted.notes)
        assert devsup("--json", "list", cwd=folder).data["unmanaged"] == []
        tree = [one["pid"] for one in devsup("--json", "status", "web", cwd=folder).data["processes"]]
        assert len(tree) == 4
        fetch(server["url"], LONG)
        # Next.js keeps one of its own, from the first thing that it has to say.
        wait_until(lambda: devsup("logs", "web", cwd=folder).code == 0, LONG)
        guarded = devsup("--json", "start", "web", "--port", port, cwd=folder).data
        assert (guarded["reused"], guarded["server"]["pid"]) == (True, npm)
        assert guarded["server"]["guard_pid"] is not None
        again = devsup("--json", "restart", "web", cwd=folder, timeout=LONG).data["server"]
        assert again["guard_pid"] == guarded["server"]["guard_pid"]
        assert not any(alive(pid) for pid in tree)
        assert "Hello" in fetch(again["url"], LONG)[1]
        (result,) = devsup("--json", "stop", "web", cwd=folder).data["results"]
        assert (result["outcome"], result["survivors"], result["port_free"]) == ("stopped", [], True)
        assert alive(idle)
        shell_of = system.process(idle)
        assert shell_of is not None
        assert alive(shell_of.ppid)


def test_next_without_a_guard_is_stopped_alone(devsup: Devsup, real_app: RealApp) -> None:
    """All four processes of it, and nobody else of the group that it shares with its shell."""
    folder, port = real_app("web"), free_port()
    with shell(folder, jobs=False) as terminal:
        npm = terminal.job(["npm", "run", "dev", "--", "-p", str(port)], "npm")
        idle = terminal.job(["sleep", "1000"], "idle")
        wait_until(lambda: is_listening(port), LONG)
        assert devsup("--json", "adopt", f":{port}", cwd=folder).data["server"]["pid"] == npm
        tree = [one["pid"] for one in devsup("--json", "status", str(npm), cwd=folder).data["processes"]]
        assert len(tree) == 4
        (result,) = devsup("--json", "stop", f":{port}", cwd=folder).data["results"]
        assert (result["outcome"], result["survivors"], result["port_free"]) == ("stopped", [], True)
        assert result["left_running"] == []
        assert [(pid, system.process(pid), system.cmdline(pid)) for pid in tree if alive(pid)] == []
        assert alive(idle)

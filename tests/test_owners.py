"""Who asked is recorded, and nobody stops somebody else's server by mistake."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor
from devsup.errors import OtherOwner
from tests.support import devsup_argv, free_port, server_argv, with_changes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup

CLAUDE = {"CLAUDECODE": "1"}
GEMINI = {"GEMINI_CLI": "1"}


def start(devsup: Devsup, name: str, *words: object, env: dict[str, str] | None = None) -> Any:
    """Start a server and return its record."""
    command = ("--port", free_port(), *words, "--", *server_argv("web"))
    return devsup("--json", "start", name, *command, env=env).data["server"]


def test_another_owner_s_server_is_left_alone_and_named(devsup: Devsup) -> None:
    """Whatever the way in; and who takes it over, is it, or is a person, ends it."""
    server = start(devsup, "web", env=CLAUDE)
    assert server["owner"] == "claude-code"
    for target in ("web", str(server["pid"]), f":{server['port']}"):
        answer = devsup("--json", "stop", target, env=GEMINI)
        assert (answer.code, answer.error["code"]) == (12, "other_owner")
        assert answer.error["details"]["owner"] == "claude-code"
        assert answer.error["hint"] == "devsup stop web --take-over"
        (result,) = answer.json["data"]["results"]
        assert (result["outcome"], result["error"], result["signals"]) == ("refused", "other_owner", [])
    again = devsup("--json", "restart", "web", env=GEMINI)
    assert (again.code, again.error["details"]) == (12, {"owner": "claude-code"})
    assert again.error["hint"] == "devsup restart web --take-over"
    # Its owner may, and it stays the owner; `start` gives it to anybody.
    assert devsup("--json", "restart", "web", env=CLAUDE).data["server"]["owner"] == "claude-code"
    found = devsup("--json", "start", "web", "--", *server_argv("web"), env=GEMINI).data
    assert (found["reused"], found["server"]["owner"]) == (True, "claude-code")
    restarted = devsup("--json", "restart", "web", "--take-over", env=GEMINI).data["server"]
    assert restarted["generation"] > server["generation"]
    assert devsup("--json", "stop", "web", "--take-over", env=GEMINI).code == 0
    # What has ended is nobody's to lose.
    (result,) = devsup("--json", "stop", "web", env=GEMINI).data["results"]
    assert result["outcome"] == "already_stopped"


def test_stop_all_ends_one_s_own_and_anybody_s(devsup: Devsup) -> None:
    start(devsup, "claudes", env=CLAUDE)
    start(devsup, "geminis", env=GEMINI)
    start(devsup, "scripts")
    answer = devsup("--json", "stop", "--all", env=GEMINI)
    assert (answer.code, answer.error["code"]) == (12, "other_owner")
    outcomes = {one["target"]: one["outcome"] for one in answer.json["data"]["results"]}
    assert outcomes == {"claudes": "refused", "geminis": "stopped", "scripts": "stopped"}
    assert devsup("--json", "stop", "--all", env=CLAUDE).code == 0


def test_stop_owner_selects_and_does_not_take_over(devsup: Devsup) -> None:
    """`--owner` says which servers are meant, not who asks."""
    for name in ("one", "two"):
        assert start(devsup, name, "--owner", "ci\x1b[31m")["owner"] == "ci[31m"
    start(devsup, "three")
    refused = devsup("--json", "stop", "--owner", "ci[31m")
    assert [one["outcome"] for one in refused.json["data"]["results"]] == ["refused", "refused"]
    assert refused.code == 12
    stopped = devsup("--json", "stop", "--owner", "ci[31m", env={"DEVSUP_OWNER": "ci[31m"}).data
    assert [(one["target"], one["outcome"]) for one in stopped["results"]] == [
        ("one", "stopped"),
        ("two", "stopped"),
    ]
    assert devsup("--json", "stop", "--owner", "nobody").data == {"results": []}
    assert devsup("--json", "stop", "--owner", " ").error["code"] == "usage"
    assert devsup("--json", "stop", "x", "--owner", "me").error["code"] == "usage"
    assert [one["app"] for one in devsup("--json", "list").data["servers"]] == ["three"]
    devsup("stop", "--all")


def test_a_person_at_a_terminal_is_asked_for_nothing(devsup: Devsup, project: Path) -> None:
    """An agent with a terminal of its own is no person."""
    start(devsup, "web", env=CLAUDE)

    def at_terminal(env: dict[str, str]) -> int:
        outer, inner = pty.openpty()
        try:
            return subprocess.run(
                devsup_argv("stop", "web", "--json"),
                stdin=inner,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=with_changes(env),
                cwd=project,
                timeout=120,
                check=False,
            ).returncode
        finally:
            os.close(outer)
            os.close(inner)

    assert at_terminal(GEMINI) == 12
    assert at_terminal({"DEVSUP_OWNER": "me"}) == 0


def test_the_owner_changes_nothing_that_is_printed(devsup: Devsup) -> None:
    """Agents told apart by their variables get what everybody gets."""
    answers = []
    for env in ({}, CLAUDE, {"DEVSUP_OWNER": "ci"}):
        port = free_port()
        command = ("--port", port, "--", *server_argv("web"))
        lines = devsup("start", "web", *command, env=env).out, devsup("stop", "web", env=env).out
        answers.append([line.replace(str(port), "PORT").split()[:3] for line in lines])
    assert answers[0][0] == answers[1][0] == answers[2][0]
    assert json.dumps(answers[0][1][:2]) == json.dumps(answers[1][1][:2])


def test_the_api_has_the_same_rule(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devsup = Supervisor(str(project), str(home))
    started = devsup.start("web", command=server_argv("web"), port=free_port(), owner="ci")
    assert started.server.owner == "ci"
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    assert devsup.stop_server("web").error == "other_owner"
    with pytest.raises(OtherOwner):
        devsup.restart("web")
    assert [one.error for one in devsup.cleanup().results] == ["other_owner"]
    assert devsup.stop_server("web", take_over=True).error is None

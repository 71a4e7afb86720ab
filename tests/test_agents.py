"""What is written for agents: the guide for their prompt, and the wrappers that the documentation shows."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from devsup import errors
from devsup.cli import lane
from tests.support import ROOT, free_port, server_argv

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup

PAGE = (ROOT / "docs" / "agents.md").read_text()


def blocks(language: str, text: str = PAGE) -> list[str]:
    """Return the code of that language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_guide_is_short_and_true(devsup: Devsup) -> None:
    guide = devsup("agent-guide").out
    assert devsup("agent-guide", "--json").data == {"guide": guide}
    assert len(guide.splitlines()) < 40
    lines = [
        line.partition("  #")[0].replace(" C", " 1:0") for line in "".join(blocks("sh", guide)).splitlines()
    ]
    calls = [shlex.split(line) for line in lines]
    assert len(calls) > 4
    for call in (*calls, *(shlex.split(one) for one in re.findall(r"`(devsup [^`\s][^`]*)`", guide))):
        assert call[0] == "devsup"
        assert lane.parse(call[1:]) is not None, call
    exits = {int(number) for number in re.findall(r"^\| (\d+) ", guide, re.MULTILINE)}
    known = {getattr(errors, name).exit_code for name in errors.__all__}
    assert exits - {0} <= known


def test_the_shown_settings_can_be_read() -> None:
    assert [json.loads(one) for one in blocks("json")]
    assert [tomllib.loads(one) for one in blocks("toml")]
    for line in "".join(blocks("sh")).splitlines():
        if line.startswith("devsup "):
            assert lane.parse(shlex.split(line, comments=True)[1:]) is not None, line


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch, home: Path) -> Any:
    """Give the function that the page shows."""
    assert home.is_dir()
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    scope: dict[str, Any] = {}
    (code,) = blocks("python")
    exec(code, scope)
    return scope["devsup"]


def test_the_shown_wrapper_works(wrapper: Any, project: Path) -> None:
    port = free_port()
    command = ["--port", str(port), "--", *server_argv("web", "--port", port, "--lines", 2)]

    async def episode() -> None:
        started = await wrapper("start", "web", *command, folder=str(project))
        assert started["data"]["server"]["state"] == "ready", started
        page = await wrapper("logs", "web", folder=str(project))
        assert "line 1" in page["data"]["text"]
        wrong = await wrapper("stop", "nope", folder=str(project))
        assert (wrong["ok"], wrong["error"]["code"]) == (False, "not_found")
        assert (await wrapper("rm", "-rf"))["error"]["code"] == "usage"
        stopped = await wrapper("stop", "web", folder=str(project))
        assert stopped["data"]["results"][0]["port_free"] is True

    asyncio.run(episode())


def test_a_wrapper_that_times_out_leaves_a_server_that_is_listed(
    wrapper: Any, devsup: Devsup, project: Path
) -> None:
    async def episode() -> None:
        slow = ["start", "web", "--port", str(free_port()), "--", *server_argv("web", "--delay", 60)]
        task = asyncio.create_task(wrapper(*slow, folder=str(project)))
        while not any(one["pid"] for one in (await wrapper("list", folder=str(project)))["data"]["servers"]):
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(episode())
    assert devsup("list", "--json").data["servers"][0]["state"] == "starting"
    assert devsup("stop", "web").code == 0


# -- the example of a tool -----------------------------------------------------------------------------


def example() -> Any:
    """Return the example as a module."""
    spec = importlib.util.spec_from_file_location("agent_tool", ROOT / "examples" / "agent_tool.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs_and_leaves_nothing(devsup: Devsup, project: Path) -> None:
    argv = [sys.executable, "-W", "default", str(ROOT / "examples" / "agent_tool.py")]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [ast.literal_eval(line.partition(" -> ")[2]) for line in done.stdout.splitlines()]
    assert [one["ok"] for one in answers] == [False, False, True, True, True, True, True, True]
    assert (answers[2]["reused"], answers[3]["reused"]) == (False, True)
    assert (answers[5]["verdict"], answers[5]["http"]["status"]) == ("ok", 200)
    assert answers[-1] == {"ok": True, "outcome": "stopped", "port_free": True}
    assert devsup("list", "--json").data["servers"] == []


@pytest.mark.parametrize(
    "command",
    [
        "npm run dev",
        [],
        ["npm", 1],
        ["rm", "-rf", "/"],
        ["/bin/sh", "-c", "true"],
        ["./npm", "run", "dev"],
        ["../npm"],
        ["node", "-e", "process.exit()"],
        ["python3", "-c", "pass"],
        ["python3", "-cpass"],
        ["python3", "-Bc", "pass"],
        ["node", "--eval=process.exit()"],
        ["node", "-pe", "1"],
        ["npm", "run", "dev\nrm"],
        ["node", "a\0b"],
        None,
    ],
)
def test_the_example_refuses(command: object) -> None:
    module = example()
    with pytest.raises(module.Refused):
        module.validate(command)


def test_the_example_tells_the_model_what_went_wrong(project: Path, home: Path) -> None:
    assert home.is_dir()
    tool = example().DevServerTool(str(project))

    async def episode() -> None:
        for call, part in (
            ({"action": "explode"}, "no action"),
            ({"action": "stop"}, "app"),
            ({"action": "start", "app": "x", "cwd": "/"}, "unknown: cwd"),
            ({"action": "stop", "app": str(os.getpid())}, "was not started by devsup"),
            ({"action": "logs", "app": "nope"}, "no server `nope`"),
        ):
            answer = await tool.execute(**call)
            assert answer["ok"] is False
            assert part in answer["error"], answer
        crash = await tool.execute("start", app="x", command=["python3", "no-such-file.py"])
        assert crash["code"] == "exited_early"
        assert "no-such-file.py" in crash["log"]

    asyncio.run(episode())

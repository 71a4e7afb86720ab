"""What is written for agents: the guide for their prompt, and the wrappers that the documentation shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
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

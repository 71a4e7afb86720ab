"""A server in the browser and on a phone: what a person at a terminal gets, and nobody else."""

from __future__ import annotations

import os
import re
import socket
import stat
from typing import TYPE_CHECKING

import pytest
import segno

from devsup.cli import browser, phone
from devsup.models import State
from tests.cli_support import make_server
from tests.serving import expo_app
from tests.support import free_port, server_argv, wait_until
from tests.test_terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup


def shown(project: Path, *words: object, **env: str | None) -> Terminal:
    """Return what a command shows at a terminal, once it has ended well."""
    one = Terminal(list(words), project, env, split=False)
    one.read()
    code = one.process.wait(30)
    one.close()
    assert code == 0, one.text
    return one


def test_a_person_gets_a_browser_and_a_program_the_address(
    devsup: Devsup, project: Path, temporary: Path
) -> None:
    opener = temporary / "my browser"
    seen = temporary / "seen"
    opener.write_text(f'#!/bin/sh\necho "$@" > "{seen}.new"; mv "{seen}.new" "{seen}"\n')
    opener.chmod(opener.stat().st_mode | stat.S_IXUSR)
    named = {"DEVSUP_BROWSER": f"'{opener}' --new-tab"}
    port = free_port()
    url = devsup("start", "web", "--json", "--", *server_argv("web", "--port", port)).data["server"]["url"]
    answer = devsup("open", "web", "--json", env=named)
    assert answer.data == {"url": url, "port": port, "opened": False}
    assert devsup("open", "web", env=named).out == f"{url}\n"
    assert shown(project, "open", "web", "--print", **named).text == f"{url}\n"
    assert not seen.exists()
    assert shown(project, "open", "web", **named).text == f"{url}\n"
    wait_until(seen.exists, 20)
    assert seen.read_text() == f"--new-tab {url}\n"
    without = shown(project, "open", "web", DEVSUP_BROWSER="").text
    assert "no browser was found" in without
    assert devsup("open", "nope", "--json").error["code"] == "not_found"
    assert devsup("stop", "web").code == 0


def test_no_browser_takes_a_terminal() -> None:
    path = {"PATH": "/nowhere"}
    assert browser.command({**path, "DEVSUP_BROWSER": "a 'b c'"}) == ["a", "b c"]
    assert browser.command({**path, "BROWSER": "none", "DISPLAY": ":0"}) is None
    assert browser.command({**path, "BROWSER": "lynx"}) in (None, ["open"])
    assert not browser.open_url("http://localhost/", {"DEVSUP_BROWSER": "/no/such/program"})


def modules(lines: list[str]) -> list[list[bool]]:
    """Return the squares that lines of half characters show: whether each is dark."""
    upper, lower = {"▀", "█"}, {"▄", "█"}
    return [[character in half for character in line] for line in lines for half in (upper, lower)]


@pytest.mark.parametrize(
    "text", ["exp://192.168.1.23:8081", "exp://my-mac.local:19000", "exp://[fd00::1]:8081"]
)
def test_a_code_says_what_it_should(text: str) -> None:
    drawn = phone.code(text, 80)
    assert drawn is not None
    found = modules(drawn.plain.split("\n"))
    expected = [
        [bool(one) for one in row] for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)
    ]
    assert found[: len(expected)] == expected
    plain = phone.code(text, 80, coloured=False)
    assert plain is not None
    inverted = modules(plain.plain.split("\n"))[: len(expected)]
    assert inverted == [[not one for one in row] for row in expected]
    assert phone.code(text, len(expected[0]) - 1) is None


def test_a_phone_is_sent_only_where_it_can_go() -> None:
    host = {"REACT_NATIVE_PACKAGER_HOSTNAME": "10.1.2.3"}
    expo = make_server(kind="expo", port=free_port())
    assert phone.address(expo, host) == f"exp://10.1.2.3:{expo.port}"
    assert re.fullmatch(r"exp://[\d.]+:\d+", phone.address(expo, {}) or "exp://0:0")
    for other in (make_server(kind="next"), expo.replace(port=None), expo.replace(state=State.STARTING)):
        assert phone.address(other, host) is None
    with socket.create_server(("127.0.0.1", 0)) as loopback:
        assert phone.address(expo.replace(port=loopback.getsockname()[1]), host) is None


def test_an_expo_server_shows_its_code_at_a_terminal_only(devsup: Devsup, project: Path) -> None:
    port = free_port()
    expo_app(project, *server_argv("metro_like"))
    host = {"REACT_NATIVE_PACKAGER_HOSTNAME": "192.168.1.23"}
    start = shown(project, "start", "--port", port, **host)
    for one in (start, shown(project, "status", "mobile", **host), shown(project, "url", "mobile", **host)):
        lines = one.text.rstrip("\n").split("\n")
        assert lines[-1] == f"Expo Go: exp://192.168.1.23:{port}"
        code = [line for line in lines if re.fullmatch("[ ▀▄█]{20,}", line)]
        drawn = phone.code(f"exp://192.168.1.23:{port}", 80)
        assert drawn is not None
        assert [line.rstrip() for line in code] == [line.rstrip() for line in drawn.plain.split("\n")]
    assert devsup("url", "mobile", env=host).out.count("\n") == 1
    assert devsup("start", env=host).out.count("\n") == 1
    assert devsup("stop", "mobile").code == 0
    assert shown(project, "list", **host).text.count("█") == 0
    assert os.environ.get("REACT_NATIVE_PACKAGER_HOSTNAME") is None

"""Real Expo 57 (Metro) under the real devsup, from the first start to the worst day."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.real_support import (
    LONG,
    PATIENCE,
    Copies,
    Real,
    by_hand,
    copies,
    environ_of,
    reading,
    refused,
    serves,
)
from tests.serving import alive, process
from tests.support import fetch, free_port, is_listening, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Devsup, DevsupPopen, StandIn

pytestmark = [pytest.mark.real, pytest.mark.timeout(PATIENCE)]

RUNNING = "packager-status:running"


@pytest.fixture(scope="module")
def shared() -> Iterator[Copies]:
    with copies() as folders:
        yield folders


@pytest.fixture
def mobile(
    shared: Copies, devsup: Devsup, home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> Real:
    """Give Expo; the caches that Metro shares between projects go into the test's folder."""
    monkeypatch.setenv("TMPDIR", str(temporary))
    return Real(devsup, home, shared.renew("mobile"))


def expo_argv(folder: Path, *args: object) -> list[str]:
    return [str(folder / "node_modules" / ".bin" / "expo"), "start", *map(str, args)]


# -- one server ------------------------------------------------------------------------------------


def test_from_start_to_stop(mobile: Real) -> None:
    """What the README shows, and evidence after each step that it is so."""
    port = free_port()
    first = mobile.try_start("mobile", port=port)
    server = first.data["server"]
    assert (server["state"], server["port"], server["kind"]) == ("ready", port, "expo")
    assert (server["url"], server["cwd"]) == (f"http://127.0.0.1:{port}", str(mobile.folder))
    assert (first.data["reused"], first.notes) == (False, [])
    assert fetch(f"{server['url']}/status", timeout=5) == (200, RUNNING)
    # No wrapper: what was started is what listens.
    assert [one.pid for one in mobile.members("mobile")] == [server["pid"]]
    assert json.loads(serves(server["url"]))["extra"]["expoClient"]["slug"] == "devsup-example"

    (listed,) = mobile.listed()
    assert (listed["pid"], listed["state"], listed["url"]) == (server["pid"], "ready", server["url"])
    assert mobile.devsup("url", "mobile", "--json").data == {"url": server["url"], "port": port}
    calls: list[list[object]] = [
        ["mobile"],
        ["--", "npm", "start"],
        ["--", "npm", "run", "dev"],
        ["--", "npx", "expo", "start", "--localhost", "--port", port],
        ["--", "npx", "expo", "start", "-p", port, "--localhost"],
    ]
    for words in calls:
        again = mobile.devsup("start", "--json", *words).data
        assert again["reused"], words
        assert (again["server"]["pid"], again["server"]["url"]) == (server["pid"], server["url"]), words

    page = mobile.devsup("logs", "mobile", "--json").data
    assert f"Waiting on http://localhost:{port}" in page["text"]
    mobile.put("broken.js", "import './missing';\n")
    assert "UnableToResolveError" in serves(server["url"], "/broken.bundle?platform=ios&dev=true", status=500)
    more = mobile.devsup("logs", "mobile", "--after", page["next_cursor"], "--wait", 20, "--json").data
    assert "Bundling failed" in more["text"]
    assert mobile.find("mobile")["state"] == "ready"

    seen = mobile.stop("mobile")
    assert (seen["outcome"], seen["signals"], seen["escalated"]) == ("stopped", ["SIGTERM"], False)
    assert (seen["survivors"], seen["left_running"], seen["port_free"]) == ([], [], True)
    mobile.nothing_is_left(port)
    assert mobile.find("mobile")["state"] == "stopped"

    renewed = mobile.start("mobile", port=port)
    assert renewed["pid"] != server["pid"]
    assert mobile.stop(renewed["pid"])["outcome"] == "stopped"
    mobile.nothing_is_left(port)


def test_the_port_is_that_of_expo_unless_told_otherwise(mobile: Real) -> None:
    """Whoever has 8081 on this machine, if not we, is told; PORT means nothing to Expo."""
    answer = mobile.try_start("mobile", env={"PORT": str(free_port())})
    if answer.code == 0:
        server = answer.data["server"]
        assert server["port"] == 8081
        assert fetch(f"{server['url']}/status", timeout=5) == (200, RUNNING)
        mobile.stop("mobile")
        mobile.nothing_is_left(8081)
    else:
        error = refused(answer, "port_taken", 4)
        assert error["details"]["port"] == 8081
        mobile.nothing_was_started()


@pytest.mark.parametrize("value", ["1", ""])
def test_ci_is_taken_out_of_the_environment(mobile: Real, value: str) -> None:
    """With 1 Metro watches no files, with the empty value Expo 57 crashes; agents export either."""
    port = free_port()
    answer = mobile.try_start("mobile", port=port, env={"CI": value, "KEPT": "kept"})
    server = answer.data["server"]
    assert any("`CI`" in note for note in answer.notes)
    environ = environ_of(process(server["pid"]))
    assert "CI" not in environ
    assert environ["KEPT"] == "kept"
    assert "CI mode" not in mobile.log(server)
    mobile.stop("mobile")
    mobile.nothing_is_left(port)


def test_it_may_take_longer_than_its_caller_waits_and_be_stopped_meanwhile(
    mobile: Real, devsup_popen: DevsupPopen
) -> None:
    port = free_port()
    answer = mobile.try_start("mobile", port=port, flags=["--timeout", 0.1])
    error = refused(answer, "not_ready", 6)
    words = shlex.split(error["hint"])
    assert words == ["devsup", "wait", "mobile"]
    starting = answer.json["data"]["server"]
    ready = mobile.devsup(*words[1:], "--timeout", LONG, "--json").data["server"]
    assert (ready["state"], ready["pid"]) == ("ready", starting["pid"])
    mobile.stop("mobile")
    mobile.nothing_is_left(port)

    starter = devsup_popen("start", "mobile", "--port", port, "--json", cwd=mobile.folder)
    # Its port test opens the port for some milliseconds, then it takes a second until it is ready.
    wait_until(lambda: [one for one in mobile.listed() if one["pid"] is not None], LONG)
    assert mobile.stop("mobile")["outcome"] == "stopped"
    out, _ = starter.communicate(timeout=LONG)
    assert (starter.returncode, json.loads(out)["error"]["code"]) == (5, "stopped_meanwhile")
    mobile.nothing_is_left(port)


# -- ports, folders, strangers ---------------------------------------------------------------------


def test_a_port_that_a_stranger_has(mobile: Real, stand_in: StandIn) -> None:
    """Somebody else's Metro, which even answers as Metro does: told by name, and its hint works."""
    port = free_port()
    stranger = stand_in("metro_like", "--port", port, "--gap", 0, "--localhost")
    wait_until(lambda: is_listening(port))
    error = refused(mobile.try_start("mobile", port=port), "port_taken", 4)
    holder = error["details"]["holder"]
    assert (holder["pid"], holder["ours"]) == (stranger.pid, False)
    assert "metro_like" in holder["command"]
    mobile.nothing_was_started()
    words = shlex.split(error["hint"])
    assert words == ["devsup", "start", "mobile", "--port", "auto"]
    server = mobile.devsup(*words[1:], "--timeout", LONG, "--json").data["server"]
    assert server["port"] != port
    assert fetch(f"{server['url']}/status") == (200, RUNNING)
    mobile.stop("mobile")
    mobile.nothing_is_left(server["port"])
    assert stranger.poll() is None


def test_a_port_that_is_taken_between_check_and_bind(
    mobile: Real, stand_in: StandIn, devsup_popen: DevsupPopen
) -> None:
    """Expo asks whether to take another port, gets no answer and gives up; the other Metro is not ours."""
    port, gate = free_port(), mobile.folder / "gate"
    os.mkfifo(gate)
    mobile.package(scripts={"start": "cat gate && expo start --localhost"})
    starter = devsup_popen("start", "mobile", "--port", port, "--json", cwd=mobile.folder)
    wait_until(lambda: [one for one in mobile.listed() if one["pid"] is not None], LONG)
    stranger = stand_in("metro_like", "--port", port, "--gap", 0, "--stranger", mobile.folder.parent)
    wait_until(lambda: is_listening(port))
    gate.write_text("go")
    out, _ = starter.communicate(timeout=LONG)
    error = json.loads(out)["error"]
    assert (starter.returncode, error["code"]) == (5, "exited_early"), out
    assert error["details"]["exit_code"] == 1
    assert error["details"]["cause"] == "the port is already in use"
    assert "Skipping dev server" in error["details"]["log_tail"]
    assert stranger.poll() is None
    mobile.nothing_stays()


def test_one_metro_in_a_folder(mobile: Real, temporary: Path) -> None:
    """Another name or port makes it no other server. One that was started by hand has its own port."""
    port = free_port()
    server = mobile.start("mobile", port=port)
    answer = mobile.try_start("other", *expo_argv(mobile.folder), port=free_port())
    error = refused(answer, "name_taken", 12)
    assert error["details"]["server"]["pid"] == server["pid"]
    same = mobile.try_start("other", *expo_argv(mobile.folder, "--localhost"))
    assert (same.data["reused"], same.data["server"]["pid"]) == (True, server["pid"])
    assert any("as `mobile`" in note for note in same.notes)
    again = mobile.devsup("start", "mobile", "--port", free_port(), "--json")
    assert again.data["server"]["pid"] == server["pid"]
    assert any(f"already runs on port {port}" in note for note in again.notes)

    by_hand_port = free_port()
    argv = expo_argv(mobile.folder, "--localhost", "--port", by_hand_port)
    with by_hand(argv, mobile.folder, temporary / "by-hand.log") as other:
        serves(f"http://127.0.0.1:{by_hand_port}", "/status")
        refused(mobile.devsup("stop", other.pid, "--json"), "not_ours", 12)
        assert mobile.stop("mobile")["survivors"] == []
        assert not is_listening(port)
        # What runs in the same folder, but was not started by devsup, is nobody's to end.
        assert fetch(f"http://127.0.0.1:{by_hand_port}/status") == (200, RUNNING)
        refused(mobile.try_start("mobile", port=by_hand_port), "port_taken", 4)
    mobile.nothing_stays(port)


# -- broken and killed -----------------------------------------------------------------------------


def test_what_is_broken_before_it_starts(mobile: Real) -> None:
    port = free_port()
    config = mobile.folder / "metro.config.js"
    config.write_text("throw new Error('broken on purpose');\n")
    error = refused(mobile.try_start("mobile", port=port), "exited_early", 5)
    assert (error["details"]["exit_code"], error["details"]["signal"]) == (1, None)
    assert "broken on purpose" in error["details"]["log_tail"]
    assert error["details"]["cause"] == "metro.config fails to load"
    mobile.nothing_stays(port)
    config.unlink()

    app = mobile.put("app.json", '{"expo": ')
    error = refused(mobile.try_start("mobile", port=port), "exited_early", 5)
    assert error["details"]["exit_code"] == 1
    assert error["details"]["cause"] == "app.json is not valid JSON"
    mobile.nothing_stays(port)
    mobile.put("app.json", app)

    error = refused(
        mobile.devsup("start", "--json", "--", "npx", "expo", "start", "--nope", "--port", port),
        "exited_early",
        5,
    )
    assert error["details"]["cause"] == "the command has an option that its program does not know"
    mobile.nothing_stays(port)

    with mobile.without_packages():
        for words in (["mobile"], ["--", "npm", "start"], ["--", "npx", "expo", "start"]):
            error = refused(mobile.devsup("start", "--json", *words), "missing_dependencies", 9)
            assert error["hint"] == f"run `npm install` in {mobile.folder}"
            mobile.nothing_stays(port)


def test_it_is_killed(mobile: Real) -> None:
    port = free_port()
    server = mobile.start("mobile", port=port)
    process(server["pid"]).kill()
    crashed = mobile.state_becomes("mobile", "crashed")
    assert (crashed["exit_code"], crashed["signal"]) == (None, 9)
    assert mobile.events(server) == ["started", "ready", "crashed"]
    wait_until(lambda: not mobile.running(), LONG)

    anew = mobile.start("mobile", port=port)
    assert anew["id"] != server["id"]
    guard = process(anew["guard_pid"])
    guard.kill()
    wait_until(lambda: not alive(guard))
    assert mobile.find("mobile")["state"] == "ready"
    again = mobile.try_start("mobile")
    assert (again.data["reused"], again.data["server"]["pid"]) == (True, anew["pid"])
    process(anew["pid"]).kill()
    # The new guard is not its parent: that it ended is all that can be seen.
    crashed = mobile.state_becomes("mobile", "crashed")
    assert (crashed["exit_code"], crashed["signal"]) == (None, None)
    mobile.stop("mobile")
    mobile.nothing_stays(port)


def test_npm_is_the_leader(mobile: Real) -> None:
    """Its port is a flag, which npm must hand on; it dies first of all."""
    mobile.package(scripts={"start": "NODE_OPTIONS= expo start --localhost"})
    port = free_port()
    server = mobile.start("mobile", port=port)
    assert server["command"] == ["npm", "run", "start", "--", "--port", str(port)]
    assert len(mobile.members("mobile")) == 3
    leader = process(server["pid"])
    leader.terminate()  # as a person's `kill PID`
    wait_until(lambda: not alive(leader))
    assert fetch(f"{server['url']}/status") == (200, RUNNING)
    assert mobile.find("mobile")["state"] == "ready"
    assert mobile.try_start("mobile").data["reused"]
    seen = mobile.stop("mobile")
    assert (seen["outcome"], seen["escalated"], seen["port_free"]) == ("stopped", False, True)
    mobile.nothing_is_left(port)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, which Expo's download tool runs")
def test_the_helpers_go_with_it(mobile: Real, stand_in: StandIn, temporary: Path) -> None:
    """Expo fetches React Native's debugger at each start; by themselves `dotslash` and `curl` outlive it."""
    proxy, port = free_port(), free_port()
    # A proxy that accepts and never answers: no test reaches the network, and curl is there for sure.
    stand_in("silent", "--port", proxy)
    wait_until(lambda: is_listening(proxy))
    address = f"http://127.0.0.1:{proxy}"
    env = {
        "EXPO_UNSTABLE_HEADLESS": None,
        "EXPO_UNSTABLE_BONJOUR": "0",
        "DOTSLASH_CACHE": str(temporary / "dotslash"),
        "HTTPS_PROXY": address,
        "https_proxy": address,
        "NO_PROXY": None,
        "no_proxy": None,
    }
    for way in ("stopped", "killed"):
        mobile.start("mobile", port=port, env=env)
        wait_until(lambda: any(reading(one).startswith("curl ") for one in mobile.members("mobile")), LONG)
        members = mobile.members("mobile")
        assert any("dotslash" in reading(one) for one in members)
        if way == "stopped":
            assert mobile.stop("mobile")["left_running"] == []
            mobile.nothing_is_left(port)
        else:
            process(mobile.find("mobile")["pid"]).kill()
            mobile.state_becomes("mobile", "crashed")
            wait_until(lambda: not mobile.running(), LONG)
            assert mobile.stop("mobile")["outcome"] == "already_stopped"
            mobile.nothing_stays(port)
        assert not any(alive(one) for one in members)

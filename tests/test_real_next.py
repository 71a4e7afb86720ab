"""Real Next.js 16 and 15 under the real devsup, from the first start to the worst day."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.apps_layouts import git
from tests.real_support import (
    LONG,
    PATIENCE,
    STATUS,
    Copies,
    Real,
    by_hand,
    copies,
    fails,
    in_time_wait,
    leave_in_time_wait,
    next_argv,
    refused,
    serves,
)
from tests.serving import alive, process
from tests.support import ROOT, fetch, free_port, is_listening, processes_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Devsup, DevsupPopen, StandIn

pytestmark = [pytest.mark.real, pytest.mark.timeout(PATIENCE)]

CONFIG = "next.config.mjs"
PAGE = "app/page.jsx"
HELLO = {"web": "Hello from devsup", "next15": "Hello from Next.js 15"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Copies]:
    with copies() as folders:
        yield folders


@pytest.fixture(autouse=True)
def temporary_files(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the tools leave behind go with the test: yarn keeps a folder for each run."""
    monkeypatch.setenv("TMPDIR", str(temporary))


@pytest.fixture
def web(shared: Copies, devsup: Devsup, home: Path) -> Real:
    """Give Next.js 16."""
    return Real(devsup, home, shared.renew("web"))


@pytest.fixture
def next15(shared: Copies, devsup: Devsup, home: Path) -> Real:
    return Real(devsup, home, shared.renew("next15"))


@pytest.fixture(params=["web", "next15"])
def either(request: pytest.FixtureRequest, shared: Copies, devsup: Devsup, home: Path) -> Real:
    """Give both versions, one after the other."""
    return Real(devsup, home, shared.renew(request.param))


def is_16(app: Real) -> bool:
    return app.folder.name == "web"


# -- one server ------------------------------------------------------------------------------------


def test_from_start_to_stop(either: Real) -> None:
    """What the README shows, and evidence after each step that it is so."""
    app, port = either, free_port()
    first = app.try_start("web", port=port)
    server = first.data["server"]
    assert (server["state"], server["port"], server["kind"]) == ("ready", port, "next")
    assert (server["url"], server["cwd"]) == (f"http://127.0.0.1:{port}", str(app.folder))
    assert (first.data["reused"], first.notes) == (False, [])
    # Ready means that it answers now, not soon; and devsup's own question leaves no line in the log.
    assert fetch(server["url"] + STATUS, timeout=5)[0] == 200
    assert "GET" not in app.log(server)

    again = app.try_start("web", port=port).data
    assert (again["reused"], again["server"]["pid"], again["server"]["url"]) == (
        True,
        server["pid"],
        server["url"],
    )
    assert HELLO[app.folder.name] in serves(server["url"])
    listener = app.listener("web")
    assert json.loads(serves(server["url"], "/api/health"))["pid"] == listener.pid != server["pid"]

    (listed,) = app.listed()
    assert (listed["pid"], listed["state"], listed["url"]) == (server["pid"], "ready", server["url"])
    assert {one.pid for one in app.members("web")} == {server["pid"], listener.pid}
    assert app.devsup("url", "web", "--json").data == {"url": server["url"], "port": port}

    page = app.devsup("logs", "web", "--json").data
    assert "Next.js" in page["text"]
    assert "\x1b" not in page["text"]
    serves(server["url"], "/api/health")
    more = app.devsup("logs", "web", "--after", page["next_cursor"], "--wait", 20, "--json").data
    assert "GET /api/health 200" in more["text"]
    assert more["reset"] is more["truncated"] is more["ended"] is False

    # Its own lock and port are free again in time.
    newer = app.devsup("restart", "web", "--timeout", LONG, "--json").data["server"]
    assert (newer["id"], newer["url"], newer["state"]) == (server["id"], server["url"], "ready")
    assert newer["generation"] > server["generation"]
    assert newer["pid"] != server["pid"]
    assert not alive(listener)

    leave_in_time_wait(port, STATUS)
    seen = app.stop("web")
    assert (seen["outcome"], seen["signals"], seen["escalated"]) == ("stopped", ["SIGTERM"], False)
    assert (seen["survivors"], seen["left_running"], seen["port_free"]) == ([], [], True)
    app.nothing_is_left(port)
    assert app.find("web")["state"] == "stopped"
    text = app.devsup("logs", "web", "--json").data["text"]
    assert "Next.js" in text
    assert "\x1b" not in text  # at its end Next.js gives the cursor back to a terminal that is none

    # Without SO_REUSEADDR in the check, TIME_WAIT would refuse the port for up to a minute.
    assert in_time_wait(port)
    renewed = app.start("web", port=port)
    assert (renewed["port"], renewed["pid"] != server["pid"]) == (port, True)
    assert app.stop(f":{port}")["outcome"] == "stopped"
    app.nothing_is_left(port)


def test_the_ways_to_say_it_mean_one_server(web: Real) -> None:
    """By name, by script, by npx, from a subfolder or through a symlink: the same app is the same server."""
    port = free_port()
    server = web.start("web", port=port)
    link = web.folder.parent / "link"
    link.symlink_to(web.folder)
    calls: list[tuple[list[object], Path]] = [
        (["--", "npm", "run", "dev"], web.folder),
        (["--", "npx", "next", "dev", "-H", "127.0.0.1", "--port", port], web.folder),
        (["--", "npx", "next", "dev", "-p", port, "-H", "127.0.0.1"], web.folder),
        ([], web.folder / "app" / "api"),
        (["web"], link),
    ]
    for words, folder in calls:
        answer = web.devsup("start", "--json", *words, cwd=folder)
        assert answer.data["reused"], words
        assert answer.data["server"]["pid"] == server["pid"], words
    # Another host is another command: said, never silently reused.
    other = web.devsup("start", "--json", "--", "npx", "next", "dev", "--port", port)
    error = refused(other, "name_taken", 12)
    assert "-H 127.0.0.1" in error["message"]
    web.stop("web")
    # The other way round: what npx has started is what `start web` finds.
    by_npx = web.devsup(
        "start", "--json", "--timeout", LONG, "--", "npx", "next", "dev", "-H", "127.0.0.1", "--port", port
    ).data["server"]
    assert (by_npx["app"], by_npx["session"], by_npx["port"]) == ("web", "dev_server_web", port)
    assert "npx" not in " ".join(by_npx["command"])
    assert web.start("web")["pid"] == by_npx["pid"]
    web.stop(by_npx["pid"])
    web.nothing_is_left(port)


def test_twenty_starts_at_once_are_one(web: Real, devsup_popen: DevsupPopen) -> None:
    port = free_port()
    callers = [
        devsup_popen("start", "web", "--port", port, "--timeout", LONG, "--json", cwd=web.folder)
        for _ in range(20)
    ]
    answers = [json.loads(caller.communicate(timeout=2 * LONG)[0]) for caller in callers]
    assert all(answer["ok"] for answer in answers), answers
    assert sorted(answer["data"]["reused"] for answer in answers) == [False] + [True] * 19
    servers = {(one["data"]["server"]["pid"], one["data"]["server"]["url"]) for one in answers}
    assert len(servers) == 1
    assert {one["data"]["server"]["state"] for one in answers} == {"ready"}
    assert len(web.members("web")) == 2
    web.stop("web")
    web.nothing_is_left(port)


def test_it_may_take_longer_than_its_caller_waits(web: Real) -> None:
    """The start says so and goes on; the hint of the answer is the command that waits."""
    port = free_port()
    answer = web.try_start("web", port=port, flags=["--timeout", 0.1])
    error = refused(answer, "not_ready", 6)
    assert error["retryable"] is True
    starting = answer.json["data"]["server"]
    assert (starting["state"], starting["url"]) == ("starting", None)
    words = shlex.split(error["hint"])
    assert words == ["devsup", "wait", "web"]
    ready = web.devsup(*words[1:], "--timeout", LONG, "--json").data["server"]
    assert (ready["state"], ready["pid"]) == ("ready", starting["pid"])
    assert fetch(ready["url"] + STATUS, timeout=5)[0] == 200
    web.stop("web")
    web.nothing_is_left(port)


def test_a_stop_does_not_wait_for_a_request(web: Real) -> None:
    """One that takes 30 seconds is under way, over a connection that stays open."""
    port = free_port()
    server = web.start("web", port=port)
    with socket.create_connection(("127.0.0.1", port), timeout=LONG) as connection:
        connection.sendall(b"GET /api/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: "/api/slow" in web.log(server), LONG)
        seen = web.stop("web")
    assert (seen["outcome"], seen["signals"], seen["port_free"]) == ("stopped", ["SIGTERM"], True)
    web.nothing_is_left(port)


@pytest.mark.parametrize("moment", ["listed", "forked", "banner", "Ready in"])
def test_a_stop_while_it_starts(web: Real, devsup_popen: DevsupPopen, moment: str) -> None:
    """Whatever a start has come to, a stop ends it, and the starter is told so."""
    port = free_port()
    starter = devsup_popen("start", "web", "--port", port, "--json", cwd=web.folder)

    def come() -> bool:
        rows = web.listed()
        if not rows or moment == "listed":
            return bool(rows)
        if moment == "forked":
            return rows[0]["pid"] is not None
        wanted = "Next.js" if moment == "banner" else moment
        return os.path.exists(rows[0]["log"]) and wanted in web.log(rows[0])

    wait_until(come, LONG)
    seen = web.stop("web")
    assert seen["outcome"] == "stopped"
    assert not seen["escalated"]
    out, _ = starter.communicate(timeout=LONG)
    answer = json.loads(out)
    # The latest moment may be too late to come before the answer.
    assert answer["ok"] or answer["error"]["code"] == "stopped_meanwhile", answer
    assert not answer["ok"] or moment == "Ready in"
    web.nothing_is_left(port)


# -- ports, folders, strangers ---------------------------------------------------------------------


def test_a_port_that_a_stranger_has(web: Real, stand_in: StandIn) -> None:
    """On whichever address: the answer says who, and its hint is the command that works."""
    strangers = []
    for host in ("127.0.0.1", "::1"):
        port = free_port()
        child = stand_in("web", "--port", port, "--host", host)
        wait_until(lambda port=port, host=host: is_listening(port, host))  # type: ignore[misc]
        strangers.append((port, host, child))
        error = refused(web.try_start("web", port=port), "port_taken", 4)
        holder = error["details"]["holder"]
        assert (holder["pid"], holder["ours"]) == (child.pid, False)
        assert holder["cwd"] == os.readlink(f"/proc/{child.pid}/cwd")
        assert "web.py" in holder["command"]
        assert str(child.pid) in error["message"]
        web.nothing_was_started()
    words = shlex.split(error["hint"])
    assert words == ["devsup", "start", "web", "--port", "auto"]
    server = web.devsup(*words[1:], "--timeout", LONG, "--json").data["server"]
    assert server["port"] not in {port for port, _, _ in strangers}
    serves(server["url"], STATUS)
    web.stop("web")
    web.nothing_is_left(server["port"])
    for port, host, child in strangers:
        assert child.poll() is None
        assert is_listening(port, host)


def test_a_port_that_is_taken_between_check_and_bind(
    either: Real, stand_in: StandIn, devsup_popen: DevsupPopen
) -> None:
    """The stranger answers everything with 200, which is not our server's doing; Next 15 exits with 0."""
    app, port = either, free_port()
    gate = app.folder / "gate"
    os.mkfifo(gate)
    app.package(scripts={"dev": "cat gate && next dev -H 127.0.0.1"})
    starter = devsup_popen("start", "web", "--port", port, "--json", cwd=app.folder)
    wait_until(lambda: [one for one in app.listed() if one["pid"] is not None], LONG)
    stranger = stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port))
    gate.write_text("go")
    out, _ = starter.communicate(timeout=LONG)
    error = json.loads(out)["error"]
    assert (starter.returncode, error["code"]) == (5, "exited_early")
    assert error["details"]["exit_code"] == (1 if is_16(app) else 0)
    assert error["details"]["cause"] == "the port is already in use"
    assert stranger.poll() is None
    wait_until(lambda: not app.running())
    assert app.listed() == []


def test_two_worktrees_run_beside_each_other(web: Real, devsup_popen: DevsupPopen) -> None:
    """The commonest port conflict: the same app, checked out twice."""
    main, feature = web.folder, web.folder.parent / "feature"
    (main / "devsup.toml").unlink()
    for words in (["init"], ["add", "."], ["commit", "-m", "app"], ["worktree", "add", str(feature)]):
        git(main, *words)
    shutil.copytree(main / "node_modules", feature / "node_modules", symlinks=True, copy_function=os.link)

    def start(*words: object) -> list[dict[str, Any]]:
        both = [
            devsup_popen("start", "web", "--timeout", LONG, "--json", *words, cwd=folder)
            for folder in (main, feature)
        ]
        answers = [json.loads(one.communicate(timeout=2 * LONG)[0]) for one in both]
        return [answer["data"]["server"] for answer in answers]

    one, two = start("--port", "auto")
    assert (one["project"], two["project"]) == (str(main), str(feature))
    assert one["port"] != two["port"]
    assert serves(one["url"], STATUS) != serves(two["url"], STATUS)
    alone = web.devsup("list", "--json", cwd=feature)
    assert [server["pid"] for server in alone.data["servers"]] == [two["pid"]]
    assert any("other project" in note for note in alone.notes)
    assert {server["pid"] for server in web.listed("--everywhere")} == {one["pid"], two["pid"]}

    # A stop by name means this worktree's, and the port that was given once is given again.
    assert web.devsup("stop", "web", "--json", cwd=feature).code == 0
    assert fetch(one["url"] + STATUS)[0] == 200
    answer = web.devsup("start", "web", "--port", one["port"], "--json", cwd=feature)
    error = refused(answer, "port_taken", 4)
    holder = error["details"]["holder"]
    assert holder["ours"] is True
    assert holder["cwd"] == str(main)
    words = shlex.split(error["hint"])[1:]
    again = web.devsup(*words, "--timeout", LONG, "--json", cwd=feature).data["server"]
    assert again["port"] == two["port"]
    stopped = web.devsup("stop", "--all", "--everywhere", "--json").data["results"]
    assert [result["outcome"] for result in stopped] == ["stopped"] * 2
    web.nothing_is_left(one["port"], two["port"])


def test_a_server_that_somebody_started_by_hand(web: Real, temporary: Path) -> None:
    """It is shown and named, neither fought nor stopped."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = next_argv(web.folder, "-H", "127.0.0.1", "-p", port)
    with by_hand(argv, web.folder, temporary / "by-hand.log"):
        health = json.loads(serves(url, "/api/health"))
        (unmanaged,) = web.devsup("list", "--json").data["unmanaged"]
        assert (unmanaged["pid"], unmanaged["port"], unmanaged["url"]) == (health["pid"], port, url)
        assert (unmanaged["kind"], unmanaged["cwd"]) == ("next", str(web.folder))
        for wanted in (port, free_port()):
            answer = web.try_start("web", port=wanted)
            error = refused(answer, "unmanaged_running", 4)
            holder = error["details"]["holder"]
            assert (holder["pid"], holder["port"], holder["url"]) == (health["pid"], port, url)
            assert url in error["message"]
            assert str(health["pid"]) in error["message"]
        refused_stop = web.devsup("stop", health["pid"], f":{port}", "--json")
        assert refused_stop.code == 12
        web.nothing_was_started()
        assert json.loads(serves(url, "/api/health")) == health
    wait_until(lambda: not web.running(), LONG)
    # It was killed: its lock file is still there, but nobody holds it.
    assert (web.folder / ".next/dev/lock").exists()
    server = web.start("web", port=port)
    assert web.devsup("list", "--json").data["unmanaged"] == []
    web.stop(server["pid"])
    web.nothing_is_left(port)


def test_no_second_server_in_one_folder(next15: Real, temporary: Path) -> None:
    """Next 15 has no lock of its own, and two of them in one folder answer 404 for each other's pages."""
    port = free_port()
    first = next15.start("web", port=port)
    answer = next15.try_start("other", *next_argv(next15.folder), port=free_port())
    error = refused(answer, "name_taken", 12)
    assert error["details"]["server"]["pid"] == first["pid"]
    assert str(next15.folder) in error["message"]
    # Nor by somebody with another state folder.
    elsewhere = temporary / "elsewhere"
    answer = next15.try_start("web", port=free_port(), env={"DEVSUP_HOME": str(elsewhere)})
    error = refused(answer, "name_taken", 12)
    assert str(next15.home) in error["hint"]
    assert processes_of(elsewhere) == []
    assert HELLO["next15"] in serves(first["url"])
    assert len(next15.members("web")) == 2
    next15.stop("web")
    next15.nothing_is_left(port)


# -- killed ----------------------------------------------------------------------------------------


def test_the_listener_is_killed(either: Real) -> None:
    """Out of memory, say: `next dev` then ends with 0 and without a word, which is a crash all the same."""
    app, port = either, free_port()
    server = app.start("web", port=port)
    app.listener("web").kill()
    crashed = app.state_becomes("web", "crashed")
    assert (crashed["exit_code"], crashed["signal"]) == (0, None)
    assert app.events(server) == ["started", "ready", "crashed"]
    (listed,) = app.listed()
    assert (listed["state"], listed["id"]) == ("crashed", server["id"])
    assert [one for one in app.running() if "detached-flush" not in one.command] == []
    # A page that calls `process.exit(7)` is another way to get there.
    app.put(PAGE, "export default function Page() { process.exit(7) }\n")
    anew = app.start("web", port=port)
    assert anew["id"] != server["id"]
    fails(anew["url"], "/")
    crashed = app.state_becomes("web", "crashed")
    assert crashed["exit_code"] == (7 if is_16(app) else 0)
    assert app.stop("web")["outcome"] == "already_stopped"
    app.nothing_is_left(port)


def test_the_top_is_killed(web: Real) -> None:
    """Its server serves on, and that is what is said; a stop finds it all the same."""
    port = free_port()
    server = web.start("web", port=port)
    top, listener = process(server["pid"]), web.listener("web")
    top.kill()
    wait_until(lambda: not alive(top))
    assert fetch(server["url"] + STATUS)[0] == 200
    assert web.find("web")["state"] == "ready"
    again = web.try_start("web").data
    assert (again["reused"], again["server"]["id"], again["server"]["url"]) == (
        True,
        server["id"],
        server["url"],
    )
    assert [one.pid for one in web.members("web")] == [listener.pid]
    assert web.stop(listener.pid)["outcome"] == "stopped"
    web.nothing_is_left(port)


def test_the_guard_is_killed(web: Real) -> None:
    """The server lives on. The next start gives it a new guard, a stop does without."""
    port = free_port()
    server = web.start("web", port=port)
    guard = process(server["guard_pid"])
    guard.kill()
    wait_until(lambda: not alive(guard))
    (listed,) = web.listed()
    assert (listed["state"], listed["guard_pid"], listed["url"]) == ("ready", None, server["url"])
    again = web.try_start("web")
    assert (again.data["reused"], again.data["server"]["pid"]) == (True, server["pid"])
    assert any("guard" in note for note in again.notes)
    second = process(again.data["server"]["guard_pid"])
    assert second.pid != guard.pid
    # The new one does what the old one did: an edited config gives the server another listener.
    listener = web.listener("web")
    web.put(CONFIG, "export default { agentRules: false, poweredByHeader: false };\n")
    wait_until(lambda: not alive(listener), LONG)
    web.state_becomes("web", "ready")
    second.kill()
    wait_until(lambda: not alive(second))
    seen = web.stop("web")
    assert (seen["outcome"], seen["port_free"], seen["survivors"]) == ("stopped", True, [])
    web.nothing_is_left(port)


def test_everything_is_killed(web: Real) -> None:
    """A list says what it sees, and the next start begins anew, on the same port."""
    port = free_port()
    server = web.start("web", port=port)
    everybody = [process(server["guard_pid"]), *web.members("web")]
    for one in everybody:
        one.kill()
    wait_until(lambda: not any(alive(one) for one in everybody))
    (listed,) = web.listed()
    assert (listed["state"], listed["id"], listed["guard_pid"]) == ("crashed", server["id"], None)
    assert web.devsup("list", "--json").data["unmanaged"] == []
    refused(web.devsup("url", "web", "--json"), "not_found", 3)
    wait_until(lambda: not is_listening(port), LONG)
    anew = web.start("web", port=port)
    assert anew["id"] != server["id"]
    assert web.find(server["id"])["state"] in {"crashed", "lost"}
    web.stop("web")
    web.nothing_is_left(port)


# -- broken ----------------------------------------------------------------------------------------


def test_what_is_broken_before_it_starts(either: Real) -> None:
    """The answer has exit code, log and cause. Next 16 says Ready and opens its port before it gives up."""
    app, port = either, free_port()
    config = app.put(CONFIG, "throw new Error('broken on purpose');\n")
    error = refused(app.try_start("web", port=port), "exited_early", 5)
    details = error["details"]
    assert (details["exit_code"], details["signal"]) == (1, None)
    assert "broken on purpose" in details["log_tail"]
    assert details["cause"] == "next.config fails to load"
    assert details["cause"] in error["message"]
    app.nothing_stays(port)
    assert "broken on purpose" in app.devsup("logs", "web", "--json").data["text"]

    app.put(CONFIG, config)
    shutil.rmtree(app.folder / "app")
    error = refused(app.try_start("web", port=port), "exited_early", 5)
    assert error["details"]["exit_code"] == (1 if is_16(app) else 0)
    assert error["details"]["cause"] == "there is no `app` or `pages` folder"
    app.nothing_stays(port)


def test_missing_packages_start_nothing(web: Real) -> None:
    """Bare npx would fetch the newest Next.js now, or hang without a network."""
    calls = (["web"], ["--", "npm", "run", "dev"], ["--", "npx", "next", "dev"])
    with web.without_packages():
        for words in calls:
            error = refused(web.devsup("start", "--json", *words), "missing_dependencies", 9)
            assert error["hint"] == f"run `npm install` in {web.folder}"
            assert "node_modules" in error["message"]
            web.nothing_was_started()


def test_what_is_broken_while_it_runs(either: Real) -> None:
    """A page that fails is a page that fails: 500 from a server that is up. A config that fails ends it."""
    app, port = either, free_port()
    page = app.put(PAGE, "import './missing';\nexport default function Page() { return <")
    server = app.start("web", port=port)
    assert server["state"] == "ready"
    serves(server["url"], status=500)
    assert app.find("web")["state"] == "ready"
    app.put(PAGE, page)
    assert HELLO[app.folder.name] in serves(server["url"])

    old = app.listener("web")
    config = app.put(CONFIG, "export default { agentRules: false, poweredByHeader: false };\n")
    wait_until(lambda: not alive(old), LONG)
    serves(server["url"], STATUS)
    after = app.devsup("wait", "web", "--timeout", LONG, "--json").data["server"]
    assert (after["state"], after["pid"], after["url"]) == ("ready", server["pid"], server["url"])
    new = app.listener("web")
    assert new.pid != old.pid
    assert json.loads(serves(server["url"], "/api/health"))["pid"] == new.pid
    assert app.find(new.pid)["id"] == server["id"]

    app.put(CONFIG, "throw new Error('broken on purpose');\n")
    crashed = app.state_becomes("web", "crashed")
    assert crashed["exit_code"] == (1 if is_16(app) else 0)
    assert "broken on purpose" in app.log(crashed)
    assert app.events(server)[-1] == "crashed"
    assert not is_listening(port)
    app.put(CONFIG, config)
    assert app.start("web", port=port)["id"] != server["id"]
    app.stop("web")
    app.nothing_is_left(port)


# -- behind a package manager ----------------------------------------------------------------------

#: Name -> program, its lock file, processes of the tree, and whether the tree outlives a killed leader.
MANAGERS = {
    "npm": ("npm", "package-lock.json", 4, True),
    "pnpm@10": ("pnpm", "pnpm-lock.yaml", 4, True),
    "pnpm@12": ("pnpm", "pnpm-lock.yaml", 5, False),
    "yarn@1": ("yarn", "yarn.lock", 4, True),
}


def with_manager(version: str) -> dict[str, str | None]:
    """Return what makes this version the one on the PATH; skip the test where it is not installed."""
    if version == "npm":
        return {}
    folder = ROOT / ".test-apps" / "managers" / version.replace("@", "")
    if not folder.exists():
        pytest.skip(f"not there: npm install --prefix {folder.relative_to(ROOT)} {version}")
    path = os.pathsep.join([str(folder / "node_modules" / ".bin"), os.environ["PATH"]])
    # The packages were installed by npm; pnpm 12 would look for a minute for what that has changed.
    return {"PATH": path, "pnpm_config_verify_deps_before_run": "false"}


@pytest.mark.parametrize("version", MANAGERS)
def test_a_package_manager_is_the_leader(web: Real, version: str) -> None:
    """Where the script is not plainly `next dev` its manager runs it, and dies first of all."""
    env = with_manager(version)
    program, lock, processes, outlives = MANAGERS[version]
    web.package(scripts={"dev": "NODE_OPTIONS= next dev -H 127.0.0.1"})
    (web.folder / "package-lock.json").rename(web.folder / lock)
    port = free_port()
    server = web.start("web", port=port, env=env)
    assert server["command"] == [program, "run", "dev"]
    assert len(web.members("web")) == processes
    assert web.devsup("start", "--json", "--", program, "run", "dev", env=env).data["reused"]
    seen = web.stop("web")
    assert (seen["outcome"], seen["escalated"], seen["port_free"]) == ("stopped", False, True)
    web.nothing_is_left(port)

    server = web.start("web", port=port, env=env)
    leader = process(server["pid"])
    leader.kill()
    wait_until(lambda: not alive(leader), LONG)
    if outlives:
        assert fetch(server["url"] + STATUS)[0] == 200
        assert web.find("web")["state"] == "ready"
        assert web.try_start("web", env=env).data["reused"]
        assert web.stop("web")["outcome"] == "stopped"
    else:
        assert web.state_becomes("web", "crashed")["signal"] == signal.SIGKILL
        assert web.stop("web")["outcome"] == "already_stopped"
    web.nothing_stays(port)

"""Findings become events once and go once, whoever looks; metrics are OpenMetrics; stories are true."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, UsageError, errors
from devsup.paths import Home, ensure_home
from devsup.registry import Registry
from devsup.registry.findings import Open
from tests.serving import LINUX_ONLY, Servers
from tests.support import Answer, free_port, hear, is_listening, say, server_argv, wait_until
from tests.test_contract import checked

if TYPE_CHECKING:
    from tests.support import Devsup, DevsupPopen, Spawn, StandIn


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    """Run servers in the test's project."""
    return Servers(devsup, home, project)


def findings(devsup: Devsup) -> list[tuple[str, bool]]:
    """Return what was recorded, in its order."""
    events = map(json.loads, devsup("events", "--json", "--after", 0, "--everywhere").out.splitlines())
    return [(one["details"]["id"], one["details"]["open"]) for one in events if one["type"] == "finding"]


def kill(pid: int) -> None:
    """Kill a process of the test's own server and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}/exe") or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return ") Z " in file.read()
    except OSError:
        return True


# -- what is recorded --------------------------------------------------------------------------------------

RACER = """
import sys
from devsup.paths import Home
from devsup.registry import Registry
from devsup.registry.findings import Open
registry = Registry(Home(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    for seen in ([Open("a:1", "it is", None, None)], []):
        since = registry.event_page(after=None, limit=1, project=None).next_after
        registry.record_findings(seen, lambda one: True, since=since, by="test")
"""


def test_many_monitors_tell_a_thing_once(spawn: Spawn, home: Path) -> None:
    """Whatever they see and in whatever order: of one finding, appearing and going take turns."""
    ensure_home(Home(str(home)))
    registry = Registry(Home(str(home)))
    registry.add_event("lost")
    children = [spawn(RACER, home) for _ in range(4)]
    assert [hear(one) for one in children] == ["ready\n"] * 4
    for one in children:
        say(one)
    assert [one.wait(40) for one in children] == [0] * 4
    told = [one.details["open"] for one in registry.events() if one.type == "finding" and one.details]
    assert told
    assert told == [number % 2 == 0 for number in range(len(told))]


def test_an_older_look_does_not_undo_a_newer_one(home: Path) -> None:
    ensure_home(Home(str(home)))
    registry = Registry(Home(str(home)))
    registry.add_event("lost")
    one, two = Open("a:1", "it is", None, None), Open("b:1", "it is", "/elsewhere", "dev_server_x")

    def newest() -> int:
        return registry.event_page(after=None, limit=1, project=None).next_after

    early = newest()
    assert registry.record_findings([one, two], lambda _: True, since=early, by="me").opened == [one, two]
    late = registry.record_findings([], lambda _: True, since=early, by="another")
    assert (late.closed, late.open) == ([], [one, two])
    mine = registry.record_findings([], lambda each: each.project is None, since=newest(), by="me")
    assert (mine.closed, mine.open) == ([one], [two])
    again = registry.record_findings([one], lambda _: False, since=newest(), by="me")
    assert (again.opened, again.open) == ([one], [two, one])


@LINUX_ONLY
def test_a_finding_is_recorded_when_it_appears_and_when_it_goes(
    servers: Servers, devsup: Devsup, project: Path
) -> None:
    """Over monitors that begin anew each time, and over a healthy start: nothing is told twice."""
    quiet = ("monitor", "--once", "--json", "--max-cpu", 0)
    server = servers.start("web", *server_argv("web"), port=free_port())
    assert checked(devsup(*quiet), "monitor")["data"]["opened"] == []
    kill(server["guard_pid"])
    first = checked(devsup(*quiet), "monitor")["data"]
    key = f"server_unguarded:{server['id']}"
    assert [(one["id"], one["project"], one["session"]) for one in first["opened"]] == [
        (key, str(project), "dev_server_web")
    ]
    again = devsup(*quiet).data
    assert (again["opened"], again["closed"], [one["id"] for one in again["open"]]) == ([], [], [key])
    assert devsup("start", "web", "--", *server_argv("web")).code == 0
    after = devsup(*quiet).data
    assert ([one["id"] for one in after["closed"]], after["open"]) == ([key], [])
    assert devsup(*quiet).data["closed"] == []
    assert findings(devsup) == [(key, True), (key, False)]
    servers.stop("web")


def test_who_does_not_tell_of_its_locks_is_told_apart(devsup: Devsup, home: Path) -> None:
    """By its own name, not by its place among others: one that answers again closes no other's finding."""
    folder = Path(Home(str(home)).locks)
    folder.mkdir(parents=True)
    quiet = ("monitor", "--once", "--json", "--max-cpu", 0)
    with ExitStack() as stack:
        mute: list[socket.socket] = []
        for name in ("4711-a", "4712-b"):
            mute.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            mute[-1].bind(str(folder / f"{name}.locks"))
            mute[-1].listen()
        opened = devsup(*quiet).data["opened"]
        assert sorted(one["id"] for one in opened) == ["lock_silent:4711-a", "lock_silent:4712-b"]
        (folder / "4711-a.locks").unlink()
        after = devsup(*quiet).data
        assert [one["id"] for one in after["closed"]] == ["lock_silent:4711-a"]
        assert ([one["id"] for one in after["open"]], after["opened"]) == (["lock_silent:4712-b"], [])


@LINUX_ONLY
def test_a_tree_that_takes_too_much_is_recorded(servers: Servers, devsup: Devsup) -> None:
    server = servers.start("web", *server_argv("web"), port=free_port())
    one = devsup("monitor", "--once", "--json", env={"DEVSUP_MONITOR_MEMORY": "1"}).data
    assert [each["id"] for each in one["opened"]] == [f"memory_high:{server['id']}:1"]
    assert re.search(r"takes \d+ MiB of memory in \d+ process", one["opened"][0]["message"])
    # Another limit is another question; the end of the server answers both.
    assert devsup("monitor", "--once", "--json").data["closed"] == []
    servers.stop("web")
    assert len(devsup("monitor", "--once", "--json").data["closed"]) == 1
    code = "while True: pass"
    busy = servers.start("busy", "python3", "-c", code)
    found = devsup("monitor", "--once", "--json", "--max-cpu", 1).data["opened"]
    assert [each["id"] for each in found] == [f"cpu_high:{busy['id']}:1"]
    servers.stop("busy")
    bad = devsup("monitor", "--once", "--json", env={"DEVSUP_MONITOR_CPU": "many"})
    assert (bad.code, bad.error["code"]) == (2, "usage")
    assert devsup("monitor", "--interval", 0, "--json").code == 2


@LINUX_ONLY
def test_a_monitor_in_the_foreground_goes_on_until_it_is_ended(
    servers: Servers, devsup_popen: DevsupPopen
) -> None:
    server = servers.start("web", *server_argv("web"), port=free_port())
    monitor = devsup_popen("monitor", "--interval", 0.1, "--json")
    assert json.loads(hear(monitor))["data"]["opened"] == []
    kill(server["guard_pid"])

    def opened() -> Any:
        return json.loads(hear(monitor))["data"]["opened"]

    [one] = wait_until(opened, 30)
    assert one["id"] == f"server_unguarded:{server['id']}"
    monitor.send_signal(signal.SIGTERM)
    out, err = monitor.communicate(timeout=20)
    assert (monitor.returncode, err) == (143, "")
    assert "Traceback" not in out
    servers.stop("web")


@LINUX_ONLY
def test_a_monitor_is_a_server_like_any_other(devsup: Devsup, project: Path, temporary: Path) -> None:
    """Get-or-create; a folder of the project that is called devsup is not what it runs."""
    (project / "devsup").mkdir()
    (project / "devsup" / "__init__.py").write_text("raise SystemExit('not this one')")

    def there(*words: object) -> Answer:
        return devsup("-C", project, *words, "--json", cwd=temporary)

    first = checked(there("start", "--monitor"), "start")["data"]
    second = there("start", "--monitor").data
    assert (first["server"]["session"], first["reused"]) == ("dev_server_monitor", False)
    assert (second["server"]["pid"], second["reused"]) == (first["server"]["pid"], True)
    (project / "devsup.toml").write_text("{[")
    assert [one["id"] for one in there("monitor", "--once").data["open"]] == ["config_invalid"]
    (project / "devsup.toml").write_text("")
    [result] = there("stop", "monitor").data["results"]
    assert (result["outcome"], result["escalated"]) == ("stopped", False)
    wrong = there("start", "web", "--monitor")
    assert (wrong.code, wrong.error["hint"]) == (2, f"devsup -C {project} start --monitor")


# -- metrics -----------------------------------------------------------------------------------------------

_SAMPLE = re.compile(r"([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? ([0-9.e+-]+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SUFFIXES = {
    "gauge": {""},
    "counter": {"_total"},
    "gaugehistogram": {"_bucket", "_gcount", "_gsum"},
}


def parse(text: str) -> dict[str, dict[str, float]]:
    """Return the samples by family; fail where a rule of OpenMetrics is broken."""
    assert text.endswith("# EOF\n")
    lines = text.removesuffix("# EOF\n").splitlines()
    families: dict[str, dict[str, float]] = {}
    kind, name, heads = "", "", list[str]()
    for line in lines:
        if line.startswith("# "):
            _, word, about, rest = line.split(" ", 3)
            if word == "TYPE":
                assert about not in families, "a family comes once, whole"
                name, kind, heads = about, rest, []
                families[name] = {}
            assert about == name
            assert word in ("TYPE", "UNIT", "HELP")
            assert word not in heads
            assert not families[name], "what is said of a family stands before its samples"
            assert word != "UNIT" or name.endswith(f"_{rest}")
            heads.append(word)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        full, labels, value = match.groups()
        assert full.startswith(name)
        assert full.removeprefix(name) in _SUFFIXES[kind], line
        assert "".join(one.group(0) for one in _LABEL.finditer(labels or "")) == (labels or ""), line
        keys = [one[1] for one in _LABEL.finditer(labels or "")]
        assert len(set(keys)) == len(keys)
        key = line.rpartition(" ")[0]
        assert key not in families[name], "a series comes once"
        families[name][key] = float(value)
        assert kind != "counter" or float(value) >= 0
    for name, samples in families.items():
        buckets = [value for key, value in samples.items() if "_bucket{" in key]
        if buckets:
            assert buckets == sorted(buckets)
            assert list(samples)[len(buckets) - 1].endswith('le="+Inf"}')
            assert buckets[-1] == samples[f"{name}_gcount"]
    return families


def test_the_parser_of_these_tests_is_strict() -> None:
    for wrong in (
        "a 1\n",
        "# TYPE a gauge\na 1\na 1\n# EOF\n",
        "# TYPE a counter\na 1\n# EOF\n",
        '# TYPE a gauge\na{b="\n"} 1\n# EOF\n',
        "# TYPE a gauge\na 1\n# HELP a x\n# EOF\n",
        "# TYPE a_x gauge\n# UNIT a_x seconds\n# EOF\n",
        '# TYPE a gaugehistogram\na_bucket{le="1.0"} 2\na_bucket{le="+Inf"} 1\na_gcount 1\n# EOF\n',
    ):
        with pytest.raises((AssertionError, ValueError)):
            parse(wrong)


def test_metrics_are_openmetrics_and_true(servers: Servers, devsup: Devsup, temporary: Path) -> None:
    assert set(parse(devsup("metrics").out)["devsup_servers"].values()) == {0.0}
    odd = temporary / 'sh"op\\'
    odd.mkdir()
    (odd / "devsup.toml").touch()
    servers.start("web", *server_argv("web"), port=free_port())
    assert devsup("start", "x", "--port", free_port(), "--", *server_argv("web"), cwd=odd).code == 0
    assert devsup("restart", "web").code == 0
    servers.stop("web")
    found = parse(checked(devsup("metrics", "--json"), "metrics")["data"]["text"])
    assert found["devsup_servers"]['devsup_servers{state="ready"}'] == 1
    assert found["devsup_restarts"]["devsup_restarts_total"] == 1
    assert found["devsup_events"]['devsup_events_total{type="stopped"}'] >= 1
    assert found["devsup_generations"]["devsup_generations_total"] == 3
    assert found["devsup_registry_size_bytes"]["devsup_registry_size_bytes"] > 10_000
    assert found["devsup_start_seconds"]["devsup_start_seconds_gcount"] == 3
    assert found["devsup_stop_seconds"]["devsup_stop_seconds_gcount"] >= 1
    assert any('sh\\"op\\\\' in key for key in found["devsup_server_memory_bytes"])
    assert sum(found["devsup_lock_acquisitions"].values()) >= 2
    assert devsup("stop", "--all", "--everywhere").code == 0


# -- stories -----------------------------------------------------------------------------------------------


def story(devsup: Devsup, target: object) -> tuple[str, str]:
    """Return the sentences of a story as one text, and what is to be typed next."""
    data = checked(devsup("why", target, "--json"), "why")["data"]
    times = [one["time"] for one in data["story"] if one["time"] is not None]
    assert times == sorted(times)
    return "\n".join(f"{one['source']}: {one['text']}" for one in data["story"]), data["next"]


@LINUX_ONLY
def test_the_story_of_a_server(servers: Servers, devsup: Devsup) -> None:
    port = free_port()
    server = servers.start("web", *server_argv("web"), port=port)
    for target in ("web", f":{port}", server["pid"]):
        told, following = story(devsup, target)
        assert f"event: started by {server['owner']} as pid {server['pid']}" in told
        assert f"it is ready, pid {server['pid']}, listens on {server['url']}" in told
        assert following == "devsup check web"
    kill(server["guard_pid"])
    told, following = story(devsup, "web")
    assert ("without a guard" in told, following) == (True, "devsup start web")
    assert devsup("start", "web", "--", *server_argv("web")).code == 0
    servers.stop("web")
    told, following = story(devsup, "web")
    assert "event: somebody asked for its stop by pid" in told
    assert "event: stopped" in told
    assert (told.splitlines()[-1], following) == ("system: nothing of it runs: stopped", "devsup restart web")
    assert story(devsup, f":{port}")[1] == following
    assert devsup(*following.split()[1:]).code == 0
    servers.stop("web")


@LINUX_ONLY
def test_the_story_of_a_crash(servers: Servers, devsup: Devsup) -> None:
    server = servers.start("web", *server_argv("web"), port=free_port())
    os.kill(server["pid"], signal.SIGKILL)
    wait_until(lambda: servers.find("web")["state"] == "crashed")
    told, following = story(devsup, "web")
    assert "event: ended by itself" in told
    assert "nobody asked for" in told
    assert following == "devsup logs web --errors"
    assert devsup(*following.split()[1:]).code == 0


@LINUX_ONLY
def test_the_story_of_a_stranger(devsup: Devsup, stand_in: StandIn, temporary: Path) -> None:
    port = free_port()
    stranger = stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port))
    told, following = story(devsup, f":{port}")
    assert f"pid {stranger.pid} began, below pid {os.getpid()}" in told
    assert f"holds port {port}; devsup did not start it" in told
    assert following == f"devsup adopt {stranger.pid}"
    told, following = story(devsup, stranger.pid)
    assert "devsup did not start it" in told
    assert following == f"ps -fp {stranger.pid}"
    elsewhere = free_port()
    other = stand_in("web", "--port", elsewhere, cwd=temporary)
    wait_until(lambda: is_listening(elsewhere))
    assert story(devsup, f":{elsewhere}")[1] == f"ps -fp {other.pid}"
    told, _ = story(devsup, 1)  # nobody is above it, and in a container it may be a server
    assert "pid 1 began: `" in told
    assert "`?`" not in told


def test_the_story_of_a_port_that_a_start_would_use(devsup: Devsup, project: Path) -> None:
    port = free_port()
    (project / "devsup.toml").write_text(f'[apps.web]\ncommand = "sleep 1"\nport = {port}\n')
    told, following = story(devsup, f":{port}")
    assert told.endswith(f"`devsup start web` would use port {port}")
    assert following == "devsup start web"
    # Its number begins as the other one does.
    assert story(devsup, f":{port // 10}")[1] == f"devsup start web --port {port // 10}"


def test_nothing_has_no_story(devsup: Devsup) -> None:
    port = free_port()
    told, following = story(devsup, f":{port}")
    assert told.endswith(f"nobody listens on port {port}")
    assert following == "devsup ports"  # there is no app that a start could mean
    answer = devsup("why", "nope", "--json")
    assert (answer.code, answer.error["code"]) == (3, "not_found")
    assert "devsup" in devsup("why", f":{port}").out.splitlines()[-1]


def test_what_a_limit_may_be() -> None:
    from devsup.supervisor.monitor import Limits

    assert Limits.read(None, None, {}).asdict() == {"memory": 4096, "cpu": 200}
    assert Limits.read(5, 0, {"DEVSUP_MONITOR_CPU": "7"}).asdict() == {"memory": 5, "cpu": 0}
    with pytest.raises(UsageError) as raised:
        Limits.read(-1, None, {})
    assert isinstance(raised.value, errors.DevsupError)
    assert Supervisor.monitor.__doc__

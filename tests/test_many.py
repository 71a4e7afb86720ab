"""`up` and `down` on real processes: the order, what fails, who asks at once, who stops half-way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devsup.models import Row
from devsup.supervisor import many
from tests.apps_layouts import NEXT, lay, package
from tests.serving import script
from tests.support import Answer, free_port, server_argv, wait_until
from tests.test_contract import checked
from tests.test_stand_ins import gone

if TYPE_CHECKING:
    from tests.support import Devsup, DevsupPopen


def configure(project: Path, **apps: dict[str, Any]) -> None:
    """Write a devsup.toml with these apps; a command is that of a stand-in server."""
    lines = []
    for name, settings in apps.items():
        lines.append(f"[apps.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (project / "devsup.toml").write_text("\n".join(lines) + "\n")


def web(*words: object, **settings: Any) -> dict[str, Any]:
    """Return the settings of a server on a free port."""
    port = free_port()
    return {"command": server_argv("web", "--port", port, *words), "port": port, **settings}


def outcomes(answer: Answer) -> dict[str, str]:
    """Return how each app came out, in the order of the answer."""
    return {one["app"]: one["outcome"] for one in checked(answer, "up")["data"]["results"]}


def test_dependencies_first_and_dependents_first_down(devsup: Devsup, project: Path) -> None:
    configure(
        project,
        site=web(depends_on=["api", "auth"]),
        api=web(depends_on=["db"]),
        auth=web(),
        db=web(),
        other=web(),
    )
    assert outcomes(devsup("up", "api", "--json")) == {"db": "started", "api": "started"}
    up = devsup("up", "--json")
    assert outcomes(up) == {
        "db": "reused",
        "api": "reused",
        "auth": "started",
        "site": "started",
        "other": "started",
    }
    started = {one["app"]: one["server"] for one in up.data["results"]}
    assert all(server["state"] == "ready" for server in started.values())
    assert started["site"]["started_at"] > max(started["api"]["ready_at"], started["auth"]["ready_at"])

    down = checked(devsup("down", "db", "--json"), "down")["data"]["results"]
    assert [one["target"] for one in down] == ["site", "api", "db"]
    assert {one["outcome"] for one in down} == {"stopped"}
    assert {one["app"] for one in devsup("list", "--json").data["servers"]} == {"auth", "other"}
    again = checked(devsup("down", "db", "auth", "--json"), "down")["data"]["results"]
    assert {one["target"]: one["outcome"] for one in again} == {"db": "already_stopped", "auth": "stopped"}
    assert devsup("down").code == 0
    assert devsup("list", "--json").data["servers"] == []
    assert checked(devsup("down", "--json"), "down")["data"]["results"] == []


#: Serves when four of its kind run in this folder.
TOGETHER = """
import os
from stand_in import listen, obey, pause, serve, wanted_port
obey()
open(f"here.{os.getpid()}", "w").close()
while sum(name.startswith("here.") for name in os.listdir()) < 4:
    pause(0.01)
serve(listen(wanted_port()))
"""


def test_independent_apps_start_at_the_same_time(devsup: Devsup, project: Path) -> None:
    """None of them is ready before all of them run."""
    command = script(project, "together", TOGETHER)
    configure(project, **{name: {"command": command, "port": free_port()} for name in ("a", "b", "c", "d")})
    servers = [one["server"] for one in devsup("up", "--json").data["results"]]
    assert [one["state"] for one in servers] == ["ready"] * 4
    assert devsup("down").code == 0


def test_a_failure_skips_what_waits_on_it_and_nothing_else(devsup: Devsup, project: Path) -> None:
    configure(
        project,
        broken={"command": server_argv("crasher")},
        api=web(depends_on=["broken"]),
        site=web(depends_on=["api"]),
        other=web(),
        typo={"command": "no-such-program-at-all"},
    )
    answer = devsup("up", "--json")
    assert outcomes(answer) == {
        "broken": "failed",
        "api": "skipped",
        "site": "skipped",
        "other": "started",
        "typo": "failed",
    }
    results = {one["app"]: one for one in answer.json["data"]["results"]}
    assert results["broken"]["error"]["code"] == "exited_early"
    assert results["broken"]["error"]["details"]["exit_code"] == 1
    assert results["typo"]["error"]["code"] == "missing_executable"
    assert (results["api"]["error"], results["api"]["server"]) == (None, None)
    assert answer.code == 9
    assert answer.error["message"] == "2 of 5 apps were not started"
    assert any("`api` was skipped: it depends on `broken`" in note for note in answer.notes)
    text = devsup("up")
    assert "other   reused" in text.out
    assert "hint: " in text.err
    assert devsup("down").code == 0


def test_two_at_once_start_each_app_once(devsup: Devsup, devsup_popen: DevsupPopen, project: Path) -> None:
    names = ("a", "b", "c", "d")
    configure(
        project, **{name: web("--delay", 0.5, depends_on=["a"] if name == "d" else []) for name in names}
    )
    children = [devsup_popen("up", "--json") for _ in range(3)]
    answers = [child.communicate(timeout=120) for child in children]
    results = [json.loads(out)["data"]["results"] for out, _ in answers]
    for name in names:
        mine = [one for result in results for one in result if one["app"] == name]
        assert sorted(one["outcome"] for one in mine) == ["reused", "reused", "started"], mine
        assert len({one["server"]["pid"] for one in mine}) == 1
    assert devsup("down").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_stops_half_way_is_told_what_runs(
    number: signal.Signals, code: int, devsup: Devsup, devsup_popen: DevsupPopen, project: Path
) -> None:
    configure(project, a=web(), b=web("--delay", 60), c=web(depends_on=["b"]))
    child = devsup_popen("up", "--json")

    def both() -> bool:
        states = {one["app"]: one["state"] for one in devsup("list", "--json").data["servers"] if one["pid"]}
        return states == {"a": "ready", "b": "starting"}

    wait_until(both, 40, pause=0.1)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    envelope = checked(Answer((), child.returncode, out, err), "up")
    assert child.returncode == code
    assert "what runs: `a` (ready, pid" in envelope["error"]["message"]
    assert "`b` (starting, pid" in envelope["error"]["message"]
    assert [one["outcome"] for one in envelope["data"]["results"]] == ["started", "failed", "skipped"]
    assert envelope["error"]["hint"] == "devsup down"
    assert devsup("down").code == 0


def test_a_configuration_that_is_just_wrong_stops_nobody_from_stopping(devsup: Devsup, project: Path) -> None:
    configure(project, a=web())
    assert devsup("up").code == 0
    (project / "devsup.toml").write_text("[apps.a]\nprot = 1\n")
    up = devsup("up", "--json")
    assert (up.code, up.error["code"], up.error["details"]["line"]) == (9, "config_invalid", 2)
    assert devsup("list", "--json").code == 0
    down = devsup("down", "--json")
    assert down.code == 0, down
    assert "stopped without an order" in down.notes[0]


def notes_of(answer: Answer) -> list[str]:
    """Return its notes but that of a container whose first process is what runs the tests."""
    return [note for note in answer.notes if not note.startswith("this sandbox ends all its processes")]


def test_a_change_while_it_runs_is_told_and_not_applied(devsup: Devsup, project: Path) -> None:
    settings = web()
    configure(project, a={**settings, "env.GREETING": "hello"})
    pid = devsup("start", "a", "--json").data["server"]["pid"]
    assert devsup("start", "a", "--json").notes == []
    configure(project, a={**settings, "env.GREETING": "bye"})
    again = devsup("start", "a", "--json")
    assert (again.data["server"]["pid"], again.data["reused"]) == (pid, True)
    assert "the configuration of `a` has changed since it was started" in again.notes[0]
    configure(project, a={**settings, "env.GREETING": "hello", "port": free_port()})
    (note,) = devsup("start", "a", "--json").notes
    assert note.startswith(f"it already runs on port {settings['port']}; port ")
    configure(project, a={**settings, "env.GREETING": "bye", "command": server_argv("silent")})
    other = devsup("start", "a", "--json")
    assert (other.code, other.error["code"], other.error["hint"]) == (12, "name_taken", "devsup stop a")
    assert devsup("down").code == 0


def test_a_start_that_finds_its_server_says_which_wishes_it_does_not_fulfil(
    devsup: Devsup, project: Path
) -> None:
    configure(project, a=web(ttl="1h"))
    assert notes_of(devsup("start", "a", "--idle-timeout", "2h", "--owner", "me", "--json")) == []
    same = ["start", "a", "--idle-timeout", "120m", "--ttl", "3600", "--restart", "no", "--owner", "me"]
    assert devsup(*same, "--json").notes == []
    other = ["--idle-timeout", "0", "--restart", "always", "--with-parent", os.getpid(), "--owner", "you"]
    assert devsup("start", "a", *other, "--json").notes == [
        "it already runs; --restart, --idle-timeout, --with-parent were not applied (`devsup stop a` first)",
        "it already runs, and belongs to `me`; --owner was not applied",
    ]
    assert devsup("down", "--take-over").code == 0


def test_a_restart_without_a_guard_stays_in_its_project(
    devsup: Devsup, project: Path, temporary: Path
) -> None:
    """The folder of an app may be a project of its own: a submodule, or one beside this."""
    lay(temporary / "beside", {".git/HEAD": "ref: x\n"})
    configure(project, a=web(dir=str(temporary / "beside")))
    server = devsup("start", "a", "--json").data["server"]
    os.kill(server["guard_pid"], signal.SIGKILL)
    wait_until(lambda: gone(server["guard_pid"]))
    again = devsup("restart", "a", "--json")
    assert again.code == 0, again
    for key in ("project", "cwd", "session", "port"):
        assert again.data["server"][key] == server[key]
    assert again.data["server"]["pid"] != server["pid"]
    assert outcomes(devsup("up", "--json")) == {"a": "reused"}
    assert devsup("down").code == 0


def test_a_start_whose_server_ends_by_its_lifetime_says_so(devsup: Devsup, project: Path) -> None:
    configure(project, a={"command": server_argv("silent"), "ready.log": "never", "ttl": "300ms"})
    answer = devsup("start", "a", "--json")
    assert (answer.code, answer.error["code"]) == (5, "stopped_meanwhile")
    assert answer.error["message"].endswith("was stopped meanwhile: its `ttl` was over")


def test_readiness_and_stop_are_as_configured(devsup: Devsup, project: Path) -> None:
    """The guard does it: what it is told goes through the job."""
    settings = web("--lines", 3, **{"ready.log": "line 2", "ready.http": "/x", "stop.signal": "SIGINT"})
    never = web(**{"ready.log": "never said", "ready.timeout": "1s", "stop.grace": "1s"})
    configure(project, a=settings, b=never)
    results = {one["app"]: one for one in checked(devsup("up", "--json"), "up")["data"]["results"]}
    assert results["a"]["server"]["state"] == "ready", results
    assert results["b"]["error"]["code"] == "not_ready"
    assert results["b"]["server"]["state"] == "starting"
    stopped = {one["target"]: one["signals"] for one in devsup("down", "--json").data["results"]}
    assert stopped == {"a": ["SIGINT"], "b": ["SIGTERM"]}


def test_a_start_says_what_else_it_would_need(devsup: Devsup, project: Path) -> None:
    configure(project, a=web(depends_on=["b"]), b=web())
    notes = notes_of(devsup("start", "a", "--json"))
    assert notes == ["`a` depends on `b`, which does not run: `devsup up a` starts them in their order"]
    assert devsup("up", "a").code == 0
    assert devsup("start", "a", "--json").notes == []
    assert devsup("down").code == 0


# -- what is decided without processes -----------------------------------------------------------------


def row(app: str) -> Row:
    """Return a row of which only the app matters."""
    return Row(
        id=app, generation=1, scope="", netns="", project="", session="", app=app, kind="command", cwd="",
        command=[], log="", owner=None, started_at=0,
    )  # fmt: skip


def test_levels_keep_the_order_through_apps_that_do_not_run() -> None:
    needs = {"site": ["api"], "api": ["db"], "x": ["y"], "y": ["x"]}
    levels = many._levels([row(name) for name in ("db", "site", "x", "y", "z")], needs)
    assert [[one.app for one in level] for level in levels] == [["site", "z"], ["db"], ["x", "y"]]


def test_the_hint_of_up_is_an_up(devsup: Devsup, project: Path) -> None:
    configure(project, api=web())
    answer = devsup("up", "apj", "--json")
    assert (answer.code, answer.error["code"], answer.error["hint"]) == (3, "not_found", "devsup up api")


def test_without_a_file_every_server_that_is_found_is_meant(temporary: Path) -> None:
    from devsup.apps import detect

    lay(
        temporary,
        {
            "package.json": package(workspaces=["apps/*", "packages/*"], dev="turbo dev"),
            "apps/web/package.json": NEXT,
            "apps/admin/package.json": NEXT,
            "packages/ui/package.json": package(dev="tsc -w"),
            "packages/cli/package.json": package(start="node cli.js"),
            "apps/web/.storybook/main.js": "",
        },
    )
    storybook = package("next", devDependencies={"storybook": "9"}, dev="next dev", storybook="storybook dev")
    lay(temporary, {"apps/web/package.json": storybook})
    seen = detect.survey(str(temporary), str(temporary))
    assert "storybook" in {app.kind for app in seen.apps}
    names, notes = many._wanted(seen, None, [])
    assert sorted(names) == ["admin", "ui", "web"]
    assert notes == ["`cli` is left out: its `start` script may be no server; `devsup up cli`"]


def test_of_two_that_want_one_port_the_second_gets_another(temporary: Path) -> None:
    from devsup.apps import commands, detect
    from tests.apps_layouts import ENVIRON, EXPO

    lay(temporary, {"a/package.json": NEXT, "b/package.json": NEXT, "c/package.json": EXPO})
    seen = detect.survey(str(temporary), str(temporary))
    call = commands.Call(str(temporary), str(temporary), None, {}, ENVIRON)
    plans = {app.name: commands.of_app(seen, app, call) for app in seen.apps}
    auto = {app.name: commands.of_app(seen, app, call.replace(port="auto")) for app in seen.apps}
    moved = {name: auto[name] for name, plan in plans.items() if many._may_move(plan)}
    assert set(moved) == {"a", "b"}  # a phone looks for Metro on its usual port
    found = dict(many._with_ports_apart(plans, moved))
    assert {name: (plan.port, plan.port_auto) for name, plan in found.items()} == {
        "a": (3000, False),
        "b": (None, True),
        "mobile": (8081, False),
    }

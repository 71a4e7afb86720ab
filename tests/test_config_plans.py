"""What a configuration makes of a start: whose word counts, key by key, and how a kind is told its port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devsup import masking
from devsup.apps import commands, configured, detect
from devsup.apps.commands import Plan
from devsup.errors import Ambiguous, ConfigInvalid, NotFound, UsageError
from tests.apps_layouts import ENVIRON, EXPO, NEXT, Tree, lay, package


def planned(root: Path, toml: str, app: str | None = None, folder: str = ".", **options: Any) -> Plan:
    """Return the plan of an app of the project at ``root``, which ``toml`` configures."""
    lay(root, {"devsup.toml": toml or "# nothing"})
    project = str(root)
    settings = {"environ": ENVIRON, "config": configured.load(project), **options}
    return commands.plan(project, str(root / folder), app=app, **settings)


SHOP: Tree = {
    "package.json": package(workspaces=["apps/*"], dev="turbo dev"),
    "apps/web/package.json": NEXT,
    "apps/mobile/package.json": EXPO,
}

# -- whose word counts ---------------------------------------------------------------------------------

PORT_FILE = "[apps.web]\nport = 3002\n"
PRECEDENCE: list[tuple[str, dict[str, Any], int | None, str]] = [
    # file, what the caller says, port, where it comes from
    ("", {}, 3000, "default"),
    (PORT_FILE, {}, 3002, "file"),
    (PORT_FILE, {"environ": {**ENVIRON, "DEVSUP_WEB_PORT": "3003"}}, 3003, "file"),
    (PORT_FILE, {"environ": {**ENVIRON, "DEVSUP_WEB_PORT": "3003"}, "port": 3004}, 3004, "caller"),
    (PORT_FILE, {"env": {"PORT": "3005"}}, 3005, "caller"),
    (PORT_FILE, {"environ": {**ENVIRON, "PORT": "9999"}}, 3002, "file"),
    ("[apps.web]\nenv = {PORT = 3006}\n", {}, 3006, "file"),
    ("[apps.web]\nport = 3002\nenv = {PORT = 3006}\n", {}, 3002, "file"),
    ('[apps.web]\ncommand = "next dev -p 3007"\n', {}, 3007, "command"),
    ('[apps.web]\nport = 3002\ncommand = "next dev -p 3007"\n', {}, 3002, "file"),
    ('[apps.web]\nport = "auto"\n', {}, None, "file"),
]


@pytest.mark.parametrize(("toml", "asked", "port", "source"), PRECEDENCE)
def test_flag_then_environment_then_file_then_what_is_found(
    temporary: Path, toml: str, asked: dict[str, Any], port: int | None, source: str
) -> None:
    plan = planned(lay(temporary, SHOP), toml, "web", **asked)
    assert (plan.port, plan.port_source, plan.port_auto) == (port, source, port is None)
    if port is not None:
        told = [plan.env.get("PORT"), *plan.command[-2:]]
        assert str(port) in told, (plan.command, plan.env)


def test_variables_come_from_four_places(temporary: Path) -> None:
    """The server is the same whoever starts it: a file wins over what a shell happens to export."""
    lay(temporary, {**SHOP, "apps/web/.env": "A=dotenv\nB=dotenv\nC=dotenv\nD=dotenv\n"})
    toml = '[defaults.env]\nB = "defaults"\nC = "defaults"\n'
    toml += '[apps.web]\nenv_file = ".env"\nenv = {C = "app", D = "app"}\n'
    environ = {**ENVIRON, **dict.fromkeys("ABCDE", "shell")}
    plan = planned(temporary, toml, "web", environ=environ, env={"D": "flag"})
    ran = commands.environment(plan, environ)
    assert {name: ran[name] for name in "ABCDE"} == {
        "A": "dotenv",
        "B": "defaults",
        "C": "app",
        "D": "flag",
        "E": "shell",
    }


def test_an_env_file_that_is_wrong_is_named(temporary: Path) -> None:
    lay(temporary, SHOP)
    toml = '[apps.web]\nenv_file = "nope.env"\n'
    with pytest.raises(ConfigInvalid, match=r"nope.env` cannot be read: no such file") as caught:
        planned(temporary, toml, "web")
    assert (caught.value.details["line"], caught.value.details["key"]) == (2, "apps.web.env_file")
    lay(temporary, {"apps/web/nope.env": "A=1\nhunter2secret\n"})
    with pytest.raises(ConfigInvalid) as caught:
        planned(temporary, toml, "web")
    assert caught.value.details["line"] == 2
    assert caught.value.details["file"].endswith("nope.env")
    assert "hunter2" not in caught.value.message
    with pytest.raises(ConfigInvalid, match="it is no regular file"):
        planned(temporary, '[apps.web]\nenv_file = "."\n', "web")


def test_a_file_for_every_app_need_not_be_in_each_folder(temporary: Path) -> None:
    lay(temporary, {**SHOP, "apps/web/.env": "A=1"})
    toml = '[defaults]\nenv_file = ".env"\n'
    assert planned(temporary, toml, "web").env["A"] == "1"
    assert "A" not in planned(temporary, toml, "mobile").env


def test_values_of_a_file_are_masked_as_those_of_a_flag_are(temporary: Path) -> None:
    planned(lay(temporary, SHOP), '[apps.web]\nenv = {API_TOKEN = "hunter2secret"}\n', "web")
    assert masking.text("it says hunter2secret") == "it says ***"


def test_the_environment_names_an_app_or_all_of_them(temporary: Path) -> None:
    lay(temporary, {"my-app/package.json": package("next", dev="next dev")})
    environ = {**ENVIRON, "DEVSUP_TTL": "1h", "DEVSUP_WEB_TTL": "2h", "DEVSUP_RESTART": "always"}
    plan = planned(temporary, '[apps.my-app]\ndir = "my-app"\nttl = "3h"\n', environ=environ)
    assert (plan.app, plan.policy["ttl"], plan.policy["restart"]) == ("my-app", 3600.0, "always")
    own = {**environ, "DEVSUP_MY_APP_TTL": "5m"}
    assert planned(temporary, '[apps.my-app]\ndir = "my-app"\n', environ=own).policy["ttl"] == 300.0


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DEVSUP_WEB_PORT", "0"), ("DEVSUP_TTL", "soon"), ("DEVSUP_RESTART", "yes"), ("DEVSUP_WEB_HOST", "a b")],
)
def test_a_wrong_variable_is_named(temporary: Path, variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{variable} is `{value}`: allowed are") as caught:
        planned(lay(temporary, SHOP), "", "web", environ={**ENVIRON, variable: value})
    assert caught.value.hint == f"unset {variable}"


# -- which app is which --------------------------------------------------------------------------------


def names_of(root: Path, toml: str) -> dict[str, str]:
    """Return the names of the apps and their folders."""
    lay(root, {"devsup.toml": toml})
    seen = configured.apply(detect.survey(str(root), str(root)), configured.load(str(root)))
    return {app.name: str(Path(app.dir).relative_to(root)) for app in seen.apps}


def test_a_configured_app_stands_for_the_one_that_is_found(temporary: Path) -> None:
    lay(temporary, {"site/package.json": NEXT, "docs/package.json": NEXT, "a/b/c/d/package.json": NEXT})
    assert names_of(temporary, "# nothing") == {"docs": "docs", "site": "site"}
    assert names_of(temporary, "[apps.site]\nport = 3001") == {"site": "site", "docs": "docs"}
    assert names_of(temporary, '[apps.web]\ndir = "site"') == {"web": "site", "docs": "docs"}
    assert names_of(temporary, '[apps.docs]\ndir = "site"') == {"docs": "site", "docs-2": "docs"}
    assert names_of(temporary, '[apps.deep]\ndir = "a/b/c/d"')["deep"] == "a/b/c/d"
    command = '[apps.site]\ncommand = "npm run dev:https"\n[apps.api]\ncommand = "go run ."'
    assert names_of(temporary, command) == {"site": "site", "api": ".", "docs": "docs"}


def test_a_go_server_needs_nothing_that_is_found(temporary: Path) -> None:
    lay(temporary, {"api/main.go": "package main"})
    toml = '[apps.api]\ndir = "api"\ncommand = "go run ."\nport = 8080\nready = {http = "/health"}\n'
    plan = planned(temporary, toml)
    assert (plan.app, plan.session, plan.cwd) == ("api", "dev_server_api", str(temporary / "api"))
    assert (plan.command, plan.port, plan.env["PORT"]) == (["go", "run", "."], 8080, "8080")
    assert plan.probe["http"] == ["/health"]
    assert planned(temporary, toml, folder="api").app == "api"


def test_at_the_root_no_app_is_meant_only_because_it_names_no_folder(temporary: Path) -> None:
    toml = '[apps.a]\ncommand = "a"\n[apps.b]\ncommand = "b"\ndir = "sub"\n'
    lay(temporary, {"sub": None})
    with pytest.raises(Ambiguous) as caught:
        planned(temporary, toml)
    assert [one["name"] for one in caught.value.details["candidates"]] == ["a", "b"]
    assert planned(temporary, toml, folder="sub").app == "b"
    with pytest.raises(NotFound, match="there are `a`"):
        planned(temporary, toml, "c")


@pytest.mark.parametrize(
    ("toml", "key", "said"),
    [
        ('[apps.web]\ndir = "apps/wep"\n', "apps.web.dir", "there is no folder `apps/wep`"),
        ("[apps.api]\nport = 8080\n", "apps.api", "has no `command`"),
        (
            '[apps.web]\ndepends_on = ["apj"]\n[apps.api]\ncommand = "x"\n',
            "apps.web.depends_on",
            "no app `apj`",
        ),
    ],
)
def test_what_can_only_be_known_in_the_project_is_told_as_well(
    temporary: Path, toml: str, key: str, said: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        planned(lay(temporary, SHOP), toml, "api" if key == "apps.api" else "web")
    assert said in caught.value.message
    assert (caught.value.details["key"], caught.value.details["line"]) == (key, 2 if "." in key[5:] else 1)
    if "depends_on" in key:
        assert "did you mean `api`?" in str(caught.value.hint)


# -- how a kind is told its port -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "command", "port"),
    [
        ('kind = "next"\ncommand = "./run.sh"', ["./run.sh"], "3000"),
        ('kind = "expo"\ncommand = "./run.sh"', ["./run.sh", "--port", "8081"], None),
        ('kind = "expo"\ncommand = "./run.sh --port 8090"', ["./run.sh", "--port", "8090"], None),
        (
            'kind = "expo"\ncommand = "A=1 run"',
            ["sh", "-c", 'A=1 run "$@"', "sh", "--port", "8081"],
            None,
        ),
        ('command = "./run.sh"\nport = 4000', ["./run.sh"], "4000"),
        ('command = "./run.sh"', ["./run.sh"], None),
        ('kind = "next"\nhost = "0.0.0.0"\ncommand = "./run"', ["./run", "--hostname", "0.0.0.0"], "3000"),
        ('host = "::1"\ncommand = "./run"', ["./run"], None),
    ],
)
def test_a_command_is_told_its_port_in_the_way_of_its_kind(
    temporary: Path, settings: str, command: list[str], port: str | None
) -> None:
    plan = planned(temporary, f"[apps.x]\n{settings}\n", "x")
    assert (plan.command, plan.env.get("PORT")) == (command, port)
    if 'host = "::1"' in settings:
        assert plan.env["HOST"] == "::1"


def test_a_host_reaches_the_detected_server(temporary: Path) -> None:
    plan = planned(lay(temporary, SHOP), '[apps.web]\nhost = "127.0.0.1"\n', "web")
    assert plan.command[1:] == ["dev", "--hostname", "127.0.0.1"]
    lay(temporary, {"apps/web/package.json": package("next", dev="next dev -H ::1")})
    plan = planned(temporary, '[apps.web]\nhost = "127.0.0.1"\n', "web")
    assert plan.command[1:] == ["dev", "-H", "::1"]


# -- what goes to the guard ----------------------------------------------------------------------------


def test_a_host_that_the_command_contradicts_is_told(temporary: Path) -> None:
    toml = '[apps.x]\nkind = "vite"\ncommand = "vite --host ::1"\nhost = "0.0.0.0"\n'
    plan = planned(temporary, toml, "x")
    assert "0.0.0.0" not in plan.command
    assert plan.notes == ["the command itself says on which address it listens: `host` 0.0.0.0 has no effect"]


def test_readiness_and_policy_reach_the_guard(temporary: Path) -> None:
    toml = (
        '[apps.web]\nready = {http = "/ok", status = 200, log = "up", timeout = "2m", owner = "any"}\n'
        'stop = {signal = "SIGINT", grace = "10s", keep = ["code"]}\nrestart = "on-failure"\n'
        'idle_timeout = "15m"\nttl = 0\nhealth = {restart = true}\nlog_limit = "50MB"\n'
    )
    plan = planned(lay(temporary, SHOP), toml, "web")
    probe = {key: plan.probe[key] for key in ("http", "body", "root_header", "status", "log", "any_owner")}
    assert probe == {
        "http": ["/ok"],
        "body": None,
        "root_header": None,
        "status": 200,
        "log": "up",
        "any_owner": True,
    }
    assert plan.timeout == 120.0
    assert {key: value for key, value in plan.policy.items() if key != "config"} == {
        "restart": "on-failure",
        "idle_timeout": 900.0,
        "stop_signal": "SIGINT",
        "grace": 10.0,
        "keep": ["code"],
        "health": {"interval": 10.0, "restart": True},
        "log_limit": 50_000_000,
    }
    usual = planned(temporary, "", "web")
    assert (usual.policy, usual.timeout, usual.probe["http"]) == ({}, None, ["/__nextjs_server_status"])
    only = planned(temporary, "[apps.web]\nready = {status = 200}\n", "web").probe
    assert (only["http"], only["status"]) == (["/__nextjs_server_status"], 200)
    # A kind that is asked for nothing else has a status at its root.
    other = planned(temporary, '[apps.x]\ncommand = "x"\nready = {status = 200}\n', "x").probe
    assert (other["http"], other["status"]) == (["/"], 200)
    bare = planned(temporary, "[apps.web]\nready = {tcp = true}\n", "web")
    assert (bare.probe["http"], bare.probe["failures"]) == ([], usual.probe["failures"])


def test_defaults_hold_for_apps_that_are_only_found(temporary: Path) -> None:
    toml = '[defaults]\nidle_timeout = "15m"\n'
    assert planned(lay(temporary, SHOP), toml, "mobile").policy["idle_timeout"] == 900.0
    named = planned(temporary, toml, "x", command=["true"])
    assert named.policy["idle_timeout"] == 900.0
    assert planned(temporary, toml, command=["true"]).policy == {}


def test_what_an_app_says_of_its_readiness_is_no_addition_to_the_contrary(temporary: Path) -> None:
    lay(temporary, SHOP)
    toml = (
        '[defaults]\nready = {http = "/ok", status = 200, timeout = "9s"}\n[apps.web]\nready = {tcp = true}\n'
    )
    plan = planned(temporary, toml, "web")
    assert (plan.probe["http"], plan.probe.get("status"), plan.timeout) == ([], None, 9.0)
    assert planned(temporary, toml, "mobile").probe["http"] == ["/ok"]
    toml = '[defaults]\nready = {tcp = true}\n[apps.web]\nready = {http = "/ok"}\n'
    assert planned(temporary, toml, "web").probe["http"] == ["/ok"]
    assert planned(temporary, toml, "mobile").probe["http"] == []


def test_a_change_of_the_configuration_is_seen(temporary: Path) -> None:
    lay(temporary, SHOP)
    marks = [
        planned(temporary, toml, "web").policy.get("config")
        for toml in (
            "",
            '[apps.web]\nenv = {A = "1"}\n',
            '[apps.web]\nenv = {A = "2"}\n',
            '[apps.web]\nenv = {A = "2"}\nport = 3005\ndepends_on = ["mobile"]\n',
        )
    ]
    assert marks[0] is None
    assert marks[1] != marks[2] == marks[3]

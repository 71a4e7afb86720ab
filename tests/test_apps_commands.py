"""From a name or a typed command to what will be run: argv, port, environment, session."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from devsup.apps import commands
from devsup.apps.commands import Plan, plan, read_port, same_command
from devsup.errors import Ambiguous, ConfigInvalid, NotFound, UsageError
from tests.apps_layouts import ENVIRON, EXPO, METRO, NEXT, Tree, lay, package, plan_of

BIN = "node_modules/.bin"
INSTALLED: Tree = {f"{BIN}/{name}": "#!/bin/sh\n" for name in ("next", "expo", "react-native", "metro")}


def shown(found: Plan, root: Path) -> str:
    """Return the command with the root's path left out, and what it changes of PORT and RCT_METRO_PORT."""
    variables = [f"{name}={found.env[name]}" for name in ("PORT", "RCT_METRO_PORT") if name in found.env]
    return " ".join([*variables, *found.command]).replace(f"{root}/", "")


# -- an app's own command -----------------------------------------------------------------------------------

OWN: dict[str, tuple[dict[str, object], str]] = {
    "plain next dev": (NEXT, f"PORT=3000 {BIN}/next dev"),
    "with flags": (
        package("next", dev="next dev --turbo -H ::1"),
        f"PORT=3000 {BIN}/next dev --turbo -H ::1",
    ),
    "with a port": (package("next", dev="next dev -p 3005 --turbo"), f"{BIN}/next dev --port 3005 --turbo"),
    "with a port, joined": (package("next", dev="next dev --port=3005"), f"{BIN}/next dev --port 3005"),
    "with a port, short": (package("next", dev="next dev -p3005"), f"{BIN}/next dev --port 3005"),
    "no script": (package("next", start="next start"), f"PORT=3000 {BIN}/next dev"),
    "predev": (package("next", dev="next dev", predev="x"), "PORT=3000 npm run dev"),
    "postdev": (package("next", dev="next dev", postdev="x"), "PORT=3000 npm run dev"),
    "a variable": (package("next", dev="A=1 next dev"), "PORT=3000 npm run dev"),
    "quotes": (package("next", dev="next dev -H '::1'"), "PORT=3000 npm run dev"),
    "a chain": (package("next", dev="x && next dev"), "PORT=3000 npm run dev"),
    "a variable's value": (package("next", dev="next dev -p $PORT"), "PORT=3000 npm run dev"),
    "a default value": (package("next", dev="next dev -p ${PORT:-3001}"), "PORT=3000 npm run dev"),
    "a glob": (package("next", dev="next dev *"), "PORT=3000 npm run dev"),
    "a comment": (package("next", dev="next dev # x"), "PORT=3000 npm run dev"),
    "a port behind a variable": (package("next", dev="A=1 next dev -p 3005"), "npm run dev"),
    "the port as a variable": (package("next", dev="PORT=3005 next dev"), "npm run dev"),
    "custom server": (package("next", dev="node server.js"), "PORT=3000 npm run dev"),
    "expo": (EXPO, f"{BIN}/expo start --port 8081"),
    "expo with flags": (
        package("expo", start="expo start --localhost"),
        f"{BIN}/expo start --localhost --port 8081",
    ),
    "expo with a port": (package("expo", start="expo start -p 8090 -c"), f"{BIN}/expo start --port 8090 -c"),
    "expo, a variable": (package("expo", start="A=1 expo start"), "npm run start -- --port 8081"),
    "expo, by npx": (package("expo", start="npx expo start"), "npm run start -- --port 8081"),
    "expo, port behind npx": (package("expo", start="npx expo start --port 8090"), "npm run start"),
    "expo, a chain behind": (
        package("expo", start="A=1 expo start && x"),
        "RCT_METRO_PORT=8081 npm run start",
    ),
    "expo, beside another": (
        package("expo", start='concurrently "expo start" "x"'),
        "RCT_METRO_PORT=8081 npm run start",
    ),
    "expo, a script's script": (
        package("expo", start="npm run go", go="expo start"),
        "RCT_METRO_PORT=8081 npm run start",
    ),
    "react native": (METRO, f"{BIN}/react-native start --port 8081"),
    "metro": (package(start="metro serve --host ::1"), f"{BIN}/metro serve --host ::1 --port 8081"),
    "anything else": (package(dev="node server.js"), "npm run dev"),
    "anything else with a port": (package(dev="PORT=4000 node server.js"), "npm run dev"),
}


@pytest.mark.parametrize(("content", "command"), OWN.values(), ids=OWN)
def test_an_app_is_run_like_this(temporary: Path, content: dict[str, object], command: str) -> None:
    root = lay(temporary, {**INSTALLED, "next.config.js": "", "package.json": content})
    assert shown(plan_of(root), root) == command


@pytest.mark.parametrize(
    ("manager", "lock", "command"),
    [
        ("npm", "package-lock.json", "npm run start -- --port 8081"),
        ("pnpm", "pnpm-lock.yaml", "pnpm run start --port 8081"),
        ("yarn", "yarn.lock", "yarn run start --port 8081"),
        ("bun", "bun.lock", "bun run start --port 8081"),
    ],
)
def test_each_manager_is_given_the_port_in_its_own_way(
    temporary: Path, manager: str, lock: str, command: str
) -> None:
    """Npm eats what stands before `--`, pnpm hands the `--` itself on, where expo takes it for a folder."""
    root = lay(temporary, {"package.json": package("expo", start="A=1 expo start"), lock: ""})
    found = plan_of(root)
    assert shown(found, root) == command
    assert found.needs is not None
    assert found.needs.manager == manager


def test_the_program_is_looked_for_up_to_the_root(temporary: Path) -> None:
    workspace: Tree = {"package.json": package(workspaces=["apps/*"]), "apps/web/package.json": NEXT}
    root = lay(temporary, {**workspace, **INSTALLED})
    found = plan_of(root, ".", app="web")
    assert shown(found, root) == f"PORT=3000 {BIN}/next dev"
    assert found.env["PATH"] == f"{root}/{BIN}:{ENVIRON['PATH']}"
    lay(root, {f"apps/web/{BIN}/next": ""})
    found = plan_of(root, ".", app="web")
    assert shown(found, root) == f"PORT=3000 apps/web/{BIN}/next dev"
    assert found.env["PATH"] == f"{root}/apps/web/{BIN}:{root}/{BIN}:{ENVIRON['PATH']}"


def test_where_it_is_not_installed_its_place_is_the_app(temporary: Path) -> None:
    """So the command is the same before and after the installation; `validate` says that it is missing."""
    root = lay(temporary, {"web/package.json": NEXT})
    assert shown(plan_of(root), root) == f"PORT=3000 web/{BIN}/next dev"


def test_yarn_without_node_modules_runs_the_script(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT, "yarn.lock": "", ".pnp.cjs": ""})
    assert shown(plan_of(root), root) == "PORT=3000 yarn run dev"
    lay(root, {"package.json": package("next"), "next.config.js": ""})
    assert shown(plan_of(root), root) == "PORT=3000 yarn run next dev"


def test_bun_without_node_runs_the_script(temporary: Path) -> None:
    """Bun stands in for the node that the first line of the program names."""
    root = lay(temporary, {**INSTALLED, "package.json": NEXT, "bun.lock": "", "bin/node": ""})
    (root / "bin/node").chmod(0o755)
    assert shown(plan_of(root, environ={"PATH": "/nowhere"}), root) == "PORT=3000 bun run dev"
    assert shown(plan_of(root, environ={"PATH": f"{root}/bin"}), root) == f"PORT=3000 {BIN}/next dev"


def test_a_plan_says_all_of_it(temporary: Path) -> None:
    root = lay(temporary, {**INSTALLED, "package.json": EXPO, "src": None})
    found = plan_of(root, "src", environ={"PATH": "/bin", "DEVSUP_OWNER": "me"})
    assert (found.app, found.kind, found.session) == ("mobile", "expo", "dev_server_mobile")
    assert (found.cwd, found.folder, found.project) == (str(root), str(root), str(root))
    assert (found.port, found.port_auto, found.port_source, found.owner) == (8081, False, "default", "me")
    assert found.env == {"BROWSER": "none", "PATH": f"{root}/{BIN}:/bin"}
    assert found.notes == []
    assert found.probe["http"] == ["/status"]
    assert found.probe["body"] == "packager-status:running"
    assert found.probe["root_header"] == "X-React-Native-Project-Root"
    assert found.probe["root"] == str(root)


def test_a_command_has_no_folder_of_its_own_and_no_probe(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package(dev="node .")})
    found = plan_of(root)
    assert (found.kind, found.folder, found.port, found.port_source) == ("command", None, None, "none")
    assert (found.probe["http"], found.probe["root_header"]) == ([], None)


def test_the_probe_is_plain_json(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT})
    found = plan_of(root).probe
    assert json.loads(json.dumps(found)) == found
    assert found["http"] == ["/__nextjs_server_status"]


def test_a_broken_neighbour_is_in_the_notes(temporary: Path) -> None:
    root = lay(temporary, {"web/package.json": NEXT, "api/package.json": "{"})
    (note,) = plan_of(root, app="web").notes
    assert note.startswith(f"passed over: `{root}/api/package.json`, line 1: not valid JSON: expecting ")


def test_a_name_that_means_a_farther_app_is_noted(temporary: Path) -> None:
    """Its own folder's app is called otherwise, and whoever stands there may have meant that one."""
    root = lay(temporary, {"package.json": NEXT, "some/where/deep/shop/package.json": NEXT})
    shop = "some/where/deep/shop"
    (note,) = plan_of(root, shop, app="web").notes
    assert note == "`web` is the app in `.`; the one of this folder is `shop`"
    assert plan_of(root, shop, app="shop").notes == plan_of(root, app="web").notes == []


# -- ports --------------------------------------------------------------------------------------------------

PORTS: dict[str, tuple[dict[str, object], object, str, int | None, str]] = {
    "next": (NEXT, 4000, f"PORT=4000 {BIN}/next dev", 4000, "caller"),
    "next, default": (NEXT, None, f"PORT=3000 {BIN}/next dev", 3000, "default"),
    "next, as text": (NEXT, "4000", f"PORT=4000 {BIN}/next dev", 4000, "caller"),
    "next, own flag": (
        package("next", dev="next dev -p 3005"),
        None,
        f"{BIN}/next dev --port 3005",
        3005,
        "command",
    ),
    "next, own flag replaced": (
        package("next", dev="next dev -p 3005 --turbo"),
        4000,
        f"{BIN}/next dev --port 4000 --turbo",
        4000,
        "caller",
    ),
    "next, any port": (
        package("next", dev="next dev -p 0"),
        None,
        f"{BIN}/next dev -p 0",
        None,
        "command",
    ),
    "next, any port replaced": (
        package("next", dev="next dev -p 0"),
        4000,
        f"{BIN}/next dev --port 4000",
        4000,
        "caller",
    ),
    "expo": (EXPO, 8085, f"{BIN}/expo start --port 8085", 8085, "caller"),
    "expo, own flag replaced": (
        package("expo", start="expo start --port 8090 -c"),
        8085,
        f"{BIN}/expo start --port 8085 -c",
        8085,
        "caller",
    ),
    "expo, wrapped": (
        package("expo", start="A=1 expo start"),
        8085,
        "npm run start -- --port 8085",
        8085,
        "caller",
    ),
    "command": (package(dev="node ."), 4000, "PORT=4000 npm run dev", 4000, "caller"),
    "command, own": (package(dev="PORT=4000 node ."), None, "npm run dev", 4000, "command"),
    "command, the same": (package(dev="PORT=4000 node ."), 4000, "npm run dev", 4000, "caller"),
    "command with a flag": (package(dev="serve --port 5000"), None, "npm run dev", None, "none"),
}


@pytest.mark.parametrize(("content", "asked", "command", "port", "source"), PORTS.values(), ids=PORTS)
def test_a_port_is_given_like_this(
    temporary: Path, content: dict[str, object], asked: object, command: str, port: int | None, source: str
) -> None:
    root = lay(temporary, {**INSTALLED, "package.json": content})
    found = plan_of(root, port=asked)
    assert shown(found, root) == command
    assert (found.port, found.port_source, found.notes) == (port, source, [])


@pytest.mark.parametrize("text", ["A=1 next dev -p 3005 && x", "A=1 next dev -p 3005 # x"])
def test_a_port_that_cannot_be_replaced_is_noted(temporary: Path, text: str) -> None:
    root = lay(temporary, {"package.json": package("next", dev=text)})
    for asked in (4000, "auto"):
        found = plan_of(root, port=asked)
        assert shown(found, root) == "npm run dev"
        assert (found.port, found.port_auto, found.port_source) == (3005, False, "command")
        assert found.notes == [f"the command sets port 3005 itself: `--port {asked}` has no effect"]


def test_a_port_behind_a_wrapper_is_added_and_noted(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package("next", dev="A=1 next dev -p 3005")})
    found = plan_of(root, port=4000)
    assert shown(found, root) == "npm run dev -- --port 4000"
    assert found.port == 4000
    assert found.notes == ["the script says port 3005; `--port 4000` was added behind it"]


AUTO: dict[str, tuple[dict[str, object], str, str]] = {
    "next": (NEXT, f"{BIN}/next dev", f"PORT=12345 {BIN}/next dev"),
    "next with a flag": (
        package("next", dev="next dev -p 1 --turbo"),
        f"{BIN}/next dev --turbo",
        f"{BIN}/next dev --port 12345 --turbo",
    ),
    "next, wrapped": (
        package("next", dev="A=1 next dev -p 3005"),
        "npm run dev",
        "npm run dev -- --port 12345",
    ),
    "expo": (EXPO, f"{BIN}/expo start", f"{BIN}/expo start --port 12345"),
    "command": (package(dev="node ."), "npm run dev", "PORT=12345 npm run dev"),
}


@pytest.mark.parametrize(("content", "before", "after"), AUTO.values(), ids=AUTO)
def test_a_free_port_is_put_in_later(
    temporary: Path, content: dict[str, object], before: str, after: str
) -> None:
    root = lay(temporary, {**INSTALLED, "package.json": content})
    found = plan_of(root, port="auto", env={"A": "b"})
    assert (found.port, found.port_auto, found.port_source) == (None, True, "caller")
    assert shown(found, root) == before
    given = found.with_port(12345)
    assert (given.port, given.port_auto) == (12345, True)
    assert shown(given, root) == after
    assert given.env["A"] == "b"
    assert shown(given.with_port(12346), root) == after.replace("12345", "12346")


NO_PORTS = [
    "abc",
    "",
    "0",
    0,
    "70000",
    70000,
    -1,
    "-1",
    "3000 ",
    "+3000",
    "3_000",
    "\N{ARABIC-INDIC DIGIT THREE}",
    True,
    1.5,
]


@pytest.mark.parametrize("value", NO_PORTS, ids=map(repr, NO_PORTS))
def test_what_is_no_port(temporary: Path, value: object) -> None:
    root = lay(temporary, {"package.json": NEXT})
    with pytest.raises(UsageError) as caught:
        plan_of(root, port=value)
    assert caught.value.message == f"`{value}` is no port: a number from 1 to 65535, or `auto`"
    assert caught.value.hint == "leave `--port` out for the usual port, or say `--port auto` for a free one"


def test_what_is_a_port() -> None:
    assert [read_port(value) for value in ("1", 65535, "03000", "auto", None)] == [
        1,
        65535,
        3000,
        "auto",
        None,
    ]


@pytest.mark.parametrize("port", [6000, 10080, 22])
def test_a_port_that_next_refuses_is_refused_before_anything_starts(temporary: Path, port: int) -> None:
    root = lay(temporary, {"package.json": NEXT})
    with pytest.raises(UsageError) as caught:
        plan_of(root, port=port)
    assert caught.value.message.startswith(
        f"port {port} cannot be used: next and browsers refuse it, it is reserved for "
    )
    assert caught.value.hint == "choose another port, or say `--port auto`"


def test_a_refused_port_in_the_script_is_refused_too(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package("next", dev="next dev -p 6000")})
    with pytest.raises(UsageError, match="port 6000 cannot be used"):
        plan_of(root)


def test_what_next_refuses_others_may_use(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package(dev="node .")})
    assert plan_of(root, port=6000).port == 6000


# -- environment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "true", "", "0"])
def test_ci_is_taken_from_metro_and_that_is_said(temporary: Path, value: str) -> None:
    """With CI=1 Metro does not watch files; with an empty one Expo crashes."""
    root = lay(temporary, {**INSTALLED, "package.json": EXPO})
    found = plan_of(root, environ={"PATH": "/bin", "CI": value})
    assert found.env["CI"] is None
    assert found.notes == ["`CI` was taken out of the environment: with it the server does not watch files"]
    assert "CI" not in commands.environment(found, {"CI": value, "A": "b"})


def test_ci_is_left_to_others_and_where_the_caller_sets_it(temporary: Path) -> None:
    root = lay(temporary, {"web/package.json": NEXT, "mobile/package.json": EXPO})
    assert "CI" not in plan_of(root, app="web", environ={"CI": "1"}).env
    found = plan_of(root, app="mobile", environ={"CI": "1"}, env={"CI": "1"})
    assert (found.env["CI"], found.notes) == ("1", [])


def test_nothing_else_of_the_environment_is_changed(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT, "yarn.lock": "", ".pnp.cjs": ""})
    environ = {
        "PATH": "/bin",
        "CLAUDECODE": "1",
        "NEXT_TELEMETRY_DISABLED": "1",
        "FORCE_COLOR": "1",
        "A": "b",
    }
    changed = commands.environment(plan_of(root, environ=environ), environ)
    assert changed == {**environ, "BROWSER": "none", "PORT": "3000"}


def test_a_port_that_a_tool_exports_is_replaced_and_that_is_said(temporary: Path) -> None:
    """Sandboxes export a PORT of their own, and a server inside another one inherits that one's."""
    root = lay(temporary, {"package.json": NEXT})
    found = plan_of(root, environ={"PORT": "8080"})
    assert (found.port, found.env["PORT"]) == (3000, "3000")
    assert found.notes == ["`PORT=8080` of the environment was replaced by 3000"]
    assert plan_of(root, environ={"PORT": "8080"}, port=4000).notes == []


def test_the_callers_variables_win(temporary: Path) -> None:
    root = lay(temporary, {**INSTALLED, "package.json": NEXT})
    found = plan_of(root, env={"BROWSER": "firefox", "PATH": "/opt/bin", "A": "b"})
    assert found.env == {"BROWSER": "firefox", "PATH": f"{root}/{BIN}:/opt/bin", "A": "b", "PORT": "3000"}
    found = plan_of(root, env={"PATH": "/opt/bin"}, port="auto").with_port(12345)
    assert found.env == {"BROWSER": "none", "PATH": f"{root}/{BIN}:/opt/bin", "PORT": "12345"}


def test_a_port_given_as_a_variable_is_the_port(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT})
    found = plan_of(root, env={"PORT": "4000"})
    assert (found.port, found.port_source, found.env["PORT"]) == (4000, "caller", "4000")
    with pytest.raises(UsageError) as caught:
        plan_of(root, env={"PORT": "4000"}, port=5000)
    assert caught.value.message == "`--port 5000` and `--env PORT=4000` contradict each other"
    with pytest.raises(UsageError, match="`x` is no port"):
        plan_of(root, env={"PORT": "x"})


def test_a_command_may_read_the_variable_as_it_likes(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package(dev="node .")})
    found = plan_of(root, env={"PORT": "tcp:4000"})
    assert (found.port, found.env["PORT"]) == (None, "tcp:4000")
    with pytest.raises(UsageError):
        plan_of(root, env={"PORT": "4000"}, port=5000)


# -- typed commands -----------------------------------------------------------------------------------------

MONOREPO: Tree = {
    **INSTALLED,
    "package.json": package(workspaces=["apps/*"], dev="turbo dev"),
    "apps/site/package.json": {
        **package("next", dev="next dev", build="next build", fast="next dev --turbo"),
        "name": "@shop/site",
    },
    "apps/site/src": None,
    "apps/phone/package.json": {**EXPO, "name": "phone"},
    "apps/api/package.json": package(dev="node .", start="node dist"),
    "other": None,
}

NEXT_DEV, EXPO_START = f"{BIN}/next dev", f"{BIN}/expo start --port 8081"
SITE, PHONE, API = "apps/site", "apps/phone", "apps/api"

# (folder, words, app, kind, command with its variables, folder it runs in)
TYPED: list[tuple[str, str, str | None, str, str, str]] = [
    # what runs the app's own script is the app
    (SITE, "npm run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "pnpm run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "pnpm dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "yarn run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "yarn dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "bun run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "bun dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "/usr/bin/npm --silent run-script dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (f"{SITE}/src", "npm run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "npm run dev -- -p 4000", "web", "next", f"PORT=4000 {NEXT_DEV}", SITE),
    (SITE, "yarn dev --port=4000", "web", "next", f"PORT=4000 {NEXT_DEV}", SITE),
    (SITE, "env PORT=4000 npm run dev", "web", "next", f"PORT=4000 {NEXT_DEV}", SITE),
    (PHONE, "npm start", "mobile", "expo", EXPO_START, PHONE),
    (PHONE, "npm run start", "mobile", "expo", EXPO_START, PHONE),
    (PHONE, "npm start -- --port 8085", "mobile", "expo", f"{BIN}/expo start --port 8085", PHONE),
    (API, "npm run dev", "api", "command", "npm run dev", API),
    # from elsewhere, by the managers' own words
    (".", f"npm --prefix {SITE} run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (".", "npm run dev -w @shop/site", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (".", f"npm run --workspace={SITE} dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (".", "npm -w phone start -- --port 8085", "mobile", "expo", f"{BIN}/expo start --port 8085", PHONE),
    (".", "pnpm --filter phone start", "mobile", "expo", EXPO_START, PHONE),
    (".", f"pnpm -C {PHONE} start", "mobile", "expo", EXPO_START, PHONE),
    (PHONE, f"pnpm -w --filter ./{SITE} dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (".", "yarn workspace phone start", "mobile", "expo", EXPO_START, PHONE),
    (".", "yarn workspace phone run start", "mobile", "expo", EXPO_START, PHONE),
    (".", f"bun --cwd={SITE} run dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    # the programs themselves
    (SITE, "npx next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "npx --no-install next dev --turbo", "web", "next", f"PORT=3000 {NEXT_DEV} --turbo", SITE),
    (SITE, "npx -y next dev -p 4000", "web", "next", f"{NEXT_DEV} --port 4000", SITE),
    (SITE, "npx next", "web", "next", f"PORT=3000 {BIN}/next", SITE),
    (SITE, "bunx next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "npm exec -- next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "pnpm exec next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "pnpm next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "yarn next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (".", f"pnpm -C {SITE} exec next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, "next dev", "web", "next", f"PORT=3000 {NEXT_DEV}", SITE),
    (SITE, f"../../{BIN}/next dev", "web", "next", f"PORT=3000 ../../{BIN}/next dev", SITE),
    (SITE, f"node ../../{BIN}/next dev", "web", "next", f"PORT=3000 node ../../{BIN}/next dev", SITE),
    (SITE, "env A=1 B=2 npx next dev", "web", "next", f"PORT=3000 env A=1 B=2 {NEXT_DEV}", SITE),
    (PHONE, "npx expo start --port 8085", "mobile", "expo", f"{BIN}/expo start --port 8085", PHONE),
    (PHONE, "npx expo start", "mobile", "expo", EXPO_START, PHONE),
    (PHONE, "expo start -c", "mobile", "expo", f"{BIN}/expo start -c --port 8081", PHONE),
    (PHONE, "react-native start", "phone", "metro", f"{BIN}/react-native start --port 8081", PHONE),
    (PHONE, "metro start --port 9", "phone", "metro", f"{BIN}/metro start --port 9", PHONE),
    (PHONE, "npx metro serve", "phone", "metro", f"{BIN}/metro serve --port 8081", PHONE),
    (".", f"npx next dev {SITE}", "web", "next", f"PORT=3000 {NEXT_DEV} {SITE}", "."),
    (".", f"npx next dev -H ::1 {SITE} -p 1", None, "", "", ""),
    # an app's other scripts, and its own with more words, are the app with another command
    (SITE, "npm run fast", "web", "next", "PORT=3000 npm run fast", SITE),
    (SITE, "npm run dev -- --turbo", "web", "next", "PORT=3000 npm run dev -- --turbo", SITE),
    (SITE, "env A=1 npm run dev", "web", "next", "PORT=3000 env A=1 npm run dev", SITE),
    (SITE, "npx next@canary dev", "web", "next", "PORT=3000 npx next@canary dev", SITE),
    (SITE, "bun --bun run dev", "web", "next", "PORT=3000 bun --bun run dev", SITE),
    (SITE, "bunx --bun next dev", "web", "next", "PORT=3000 bunx --bun next dev", SITE),
    (PHONE, "npm start -- -c", "mobile", "expo", "npm start -- -c --port 8081", PHONE),
    (PHONE, "yarn start -c", "mobile", "expo", "yarn start -c --port 8081", PHONE),
    # everything else is a command
    (SITE, "npm run build", None, "command", "npm run build", SITE),
    (SITE, "npx next build", None, "command", "npx next build", SITE),
    (SITE, "npx vite build", None, "command", "npx vite build", SITE),
    (SITE, "npx -p next next dev", None, "command", "npx -p next next dev", SITE),
    (API, "npm start", None, "command", "npm start", API),
    (SITE, "npm test", None, "command", "npm test", SITE),
    (SITE, "npm", None, "command", "npm", SITE),
    (SITE, "npm run", None, "command", "npm run", SITE),
    (SITE, "pnpm -r dev", None, "command", "pnpm -r dev", SITE),
    (SITE, "pnpm --filter=./apps/** dev", None, "command", "pnpm --filter=./apps/** dev", SITE),
    (SITE, "npm run dev -ws", None, "command", "npm run dev -ws", SITE),
    (SITE, "sh -c 'npm run dev'", None, "command", "sh -c 'npm run dev'", SITE),
    (SITE, "env -i npx next dev", None, "command", "env -i npx next dev", SITE),
    (SITE, "env A=1", None, "command", "env A=1", SITE),
    (SITE, "python -m http.server", None, "command", "python -m http.server", SITE),
    (SITE, "node server.js", None, "command", "node server.js", SITE),
    ("other", "expo whoami", None, "command", "expo whoami", "other"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "words", "app", "kind", "command", "runs_in"), TYPED, ids=[f"{t[0]}: {t[1]}" for t in TYPED]
)
def test_a_typed_command_is(
    temporary: Path, folder: str, words: str, app: str | None, kind: str, command: str, runs_in: str
) -> None:
    root = lay(temporary, MONOREPO)
    if not kind:
        with pytest.raises(UsageError, match="port 1 cannot be used"):
            plan_of(root, folder, *words.split())
        return
    found = plan_of(root, folder, *words.split())
    assert (found.app, found.kind) == (app, kind)
    assert shown(found, root) == command
    assert found.cwd == str((root / runs_in).resolve())
    session = f"dev_server_{app}" if app else found.session
    assert found.session == session
    if app is None:
        assert found.session.startswith("session_")
        assert len(found.session) == len("session_") + 8
        assert found.folder is None


def test_a_typed_script_that_only_runs_an_apps_is_the_app(temporary: Path) -> None:
    passing = package(workspaces=["apps/*"], dev="npm run dev -w apps/site", fast="npm run fast -w apps/site")
    root = lay(temporary, {**MONOREPO, "package.json": passing})
    for words in ("npm run dev", "env PORT=3000 npm run dev"):
        found = plan_of(root, ".", *words.split())
        assert (found.app, shown(found, root), found.cwd) == (
            "web",
            f"PORT=3000 {NEXT_DEV}",
            str(root / SITE),
        )
    found = plan_of(root, ".", "npm", "run", "fast")
    assert (found.app, shown(found, root), found.cwd) == ("web", "PORT=3000 npm run fast", str(root / SITE))
    for words in ("npm run dev -- --turbo", "bun --bun run dev"):
        found = plan_of(root, ".", *words.split())
        assert (found.app, found.kind, found.cwd) == (None, "command", str(root))


def test_the_folder_of_a_typed_server_is_the_apps(temporary: Path) -> None:
    """By it no folder gets a second Next.js, whatever the words that started it."""
    root = lay(temporary, MONOREPO)
    words = [(SITE, "npm run fast"), (f"{SITE}/src", "npm run fast"), (".", f"npx next dev {SITE}")]
    folders = {plan_of(root, folder, *text.split()).folder for folder, text in words}
    assert folders == {str(root / SITE)}


def test_an_app_and_its_command_are_one_server(temporary: Path) -> None:
    root = lay(temporary, MONOREPO)
    by_name = plan_of(root, ".", app="mobile")
    for words in ("npx expo start", "npm start", "yarn start"):
        typed = plan_of(root, PHONE, *words.split())
        assert (typed.session, typed.command, typed.cwd) == (by_name.session, by_name.command, by_name.cwd)
        assert (typed.env, typed.folder) == (by_name.env, by_name.folder)


def test_scripts_that_say_the_same_are_one_server(temporary: Path) -> None:
    """`dev` beside `start`, since `npm run dev` is what callers try; not where npm runs more around it."""
    said = {"start": "expo start", "dev": "expo start", "hooked": "expo start", "prehooked": "echo"}
    root = lay(temporary, {"package.json": {**package("expo"), "scripts": said}, **INSTALLED})
    by_name = plan_of(root, app="mobile")
    typed = plan_of(root, ".", "npm", "run", "dev")
    assert (typed.session, typed.command, typed.env) == (by_name.session, by_name.command, by_name.env)
    hooked = plan_of(root, ".", "npm", "run", "hooked")
    assert hooked.command[:3] == ["npm", "run", "hooked"]


def test_the_port_makes_no_other_command(temporary: Path) -> None:
    root = lay(temporary, MONOREPO)
    one = plan_of(root, ".", app="mobile").command
    for other in (
        plan_of(root, PHONE, "npx", "expo", "start", "--port", "8085").command,
        plan_of(root, ".", app="mobile", port="auto").command,
    ):
        assert same_command("expo", one, other)
    assert not same_command("expo", one, [*one, "-c"])
    assert same_command("expo", ["npm", "run", "start"], ["npm", "run", "start", "--", "--port", "8085"])
    assert not same_command("command", ["x", "--port", "1"], ["x", "--port", "2"])


def test_a_name_makes_any_command_its_own_server(temporary: Path) -> None:
    root = lay(temporary, MONOREPO)
    found = plan_of(root, ".", "python", "-m", "http.server", app="files")
    assert (found.app, found.session, found.kind) == ("files", "dev_server_files", "command")
    found = plan_of(root, SITE, "npm", "run", "dev", app="second")
    assert (found.app, found.session, found.kind) == ("second", "dev_server_second", "next")
    assert found.folder == str(root / SITE)


def test_a_server_in_a_folder_without_package_gets_the_name_of_its_kind(temporary: Path) -> None:
    root = lay(temporary, {"a/b": None, "c": None})
    assert plan_of(root, "a/b", "npx", "next", "dev").app == "web"
    lay(root, {"c/package.json": NEXT})
    assert plan_of(root, "a/b", "npx", "next", "dev").app == "b"
    assert plan_of(root, "c", "npx", "next", "dev").app == "web"


def test_sessions_of_commands_are_stable_and_apart(temporary: Path) -> None:
    """The same call finds the same server; another folder, project or word another one."""
    root = lay(temporary, {"a": None, "b": None})

    def session(folder: str, *argv: str, project: Path = root) -> str:
        return plan(str(project), str(root / folder), command=list(argv), environ=ENVIRON).session

    base = session("a", "sleep", "1")
    assert base == session("a", "sleep", "1") == session("a/../a", "sleep", "1")
    others = [
        session("b", "sleep", "1"),
        session("a", "sleep", "2"),
        session("a", "sleep 1"),
        session("a", "sleep", "1", ""),
        session("a", "sleep", "1", project=root / "a"),
    ]
    assert len({base, *others}) == 6
    assert plan(str(root), str(root / "a"), command=["sleep", "1"], port=9, environ=ENVIRON).session == base


def test_words_that_are_no_text_still_have_a_session(temporary: Path) -> None:
    assert plan_of(temporary, ".", "cat", "\udcff").session.startswith("session_")


@pytest.mark.parametrize("command", [[], [""], ["a\0b"], ["a", "\0"]])
def test_what_is_no_command(temporary: Path, command: list[str]) -> None:
    with pytest.raises(UsageError):
        plan(str(temporary), str(temporary), command=command, environ=ENVIRON)


@pytest.mark.parametrize("name", ["Web", "a b", "-x", "../x", "a" * 64, ""])
def test_what_is_no_name(temporary: Path, name: str) -> None:
    for command in (None, ["sleep", "1"]):
        with pytest.raises(UsageError) as caught:
            plan(str(temporary), str(temporary), app=name, command=command, environ=ENVIRON)
        assert caught.value.message == (
            f"`{name}` cannot be a name: lower-case letters, digits, `_` and `-`, at most 63"
        )
        assert (caught.value.hint or "").startswith("devsup start ")


def test_a_missing_script_names_those_there_are(temporary: Path) -> None:
    root = lay(temporary, MONOREPO)
    with pytest.raises(NotFound) as caught:
        plan_of(root, f"{API}", "npm", "run", "serve")
    assert caught.value.message == (
        f"no script `serve` in `{root}/apps/api/package.json`; there are `dev`, `start`"
    )
    assert caught.value.details == {"known": ["dev", "start"]}


def test_a_script_without_package_says_so(temporary: Path) -> None:
    with pytest.raises(NotFound) as caught:
        plan_of(temporary, ".", "npm", "run", "dev")
    assert caught.value.message == f"`npm run dev` needs a `package.json`: none is at or above `{temporary}`"
    assert caught.value.hint == "run it in the app's folder, or name the app: devsup start APP"


def test_npm_start_has_a_default_of_its_own(temporary: Path) -> None:
    root = lay(temporary, {"package.json": {}, "server.js": ""})
    assert plan_of(root, ".", "npm", "start").kind == "command"
    with pytest.raises(NotFound):
        plan_of(root, ".", "npm", "run", "dev")
    assert plan_of(root, ".", "npm", "run", "dev", "--if-present").kind == "command"


def test_a_broken_package_that_has_the_script_is_an_error(temporary: Path) -> None:
    root = lay(temporary, {"package.json": "{"})
    with pytest.raises(ConfigInvalid):
        plan_of(root, ".", "npm", "run", "dev")
    assert plan_of(root, ".", "sleep", "1").kind == "command"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("npx expo start --port abc", "`--port abc` names no port: a number from 1 to 65535"),
        ("npx expo start --port", "`--port` names no port: a number from 1 to 65535"),
        ("npx next dev --port=70000", "`--port=70000` names no port: a number from 1 to 65535"),
        ("env PORT=x npx next dev", "`x` is no port: a number from 1 to 65535, or `auto`"),
        ("env PORT=auto npx next dev", "`auto` is no port here: only `--port auto` chooses one"),
    ],
)
def test_a_typed_port_must_be_one(temporary: Path, words: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(lay(temporary, MONOREPO), SITE, *words.split())
    assert caught.value.message == said


def test_any_words_give_a_plan_or_a_clear_error(temporary: Path) -> None:
    """What a caller may type is without end: no mix of known words may end in a traceback."""
    root = lay(temporary, MONOREPO)
    words = (
        "npm pnpm yarn bun npx bunx env node next expo dev start run exec -- -p --port 3000 -w --filter "
        f"phone {SITE} --prefix -C A=1 PORT=1 PORT= @ next@15 workspace - --bun build . / '' --port=x"
    ).split()
    chance = random.Random(7)
    for _ in range(3000):
        argv = chance.choices(words, k=chance.randint(1, 6))
        folder = chance.choice([".", SITE, PHONE, "other"])
        with suppress(UsageError, NotFound, Ambiguous):
            found = plan_of(root, folder, *argv, port=chance.choice([None, 4000, "auto"]))
            assert found.command, argv
            assert found.with_port(4001).port == 4001

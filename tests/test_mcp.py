"""devsup as a client of the Model Context Protocol sees it: the SDK's own client, real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import mcp_types as types
import pytest
from jsonschema import Draft202012Validator
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from devsup.cli import contract, handlers
from devsup.cli.answer import Answer as Answered
from devsup.cli.grammar import VERBS
from devsup.cli.mcp import brief, server, tools
from devsup.cli.mcp.roots import Roots
from devsup.errors import UsageError
from tests.support import devsup_argv, free_port, is_listening, server_argv, wait_until, with_changes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.support import Answer, Devsup, DevsupPopen

#: The handshake that most clients speak, and the protocol without one.
MODES = ["legacy", "2026-07-28"]


@asynccontextmanager
async def connected(
    folder: Path, *, mode: str = "legacy", roots: list[Path] | None = None, name: str = "robot"
) -> AsyncIterator[Client]:
    """Give a client of a `devsup mcp` of its own, started in ``folder``; ``roots`` may change meanwhile."""

    async def named(context: Any) -> types.ListRootsResult:
        del context
        found = [{"uri": f"file://{root}"} for root in roots or ()]
        return types.ListRootsResult.model_validate({"roots": found})

    command, *arguments = devsup_argv("mcp")
    process = StdioServerParameters(command=command, args=arguments, env=with_changes(None), cwd=folder)
    async with Client(
        process,
        mode=mode,
        list_roots_callback=None if roots is None else named,
        client_info=types.Implementation(name=name, version="1"),
    ) as client:
        yield client


async def asked(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Return the envelope that a tool answers, in both its forms."""
    result = await client.call_tool(tool, arguments)
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    envelope = json.loads(content.text)
    assert isinstance(envelope, dict)
    assert result.structured_content == envelope
    assert result.is_error is (envelope["error"] is not None)
    return envelope


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, for as long as a busy machine may need."""

    async def bounded() -> None:
        with anyio.fail_after(150):
            await work()

    anyio.run(bounded)


def stable(answer: Answer | dict[str, Any]) -> dict[str, Any]:
    """Return an envelope without what each look at a server changes."""
    envelope: dict[str, Any] = answer if isinstance(answer, dict) else answer.json
    text = json.dumps(envelope)
    for one in (envelope["data"] or {}).get("servers", [(envelope["data"] or {}).get("server")]):
        text = text.replace(f'"{(one or {}).get("last_used_at")}"', "null")
    found: dict[str, Any] = json.loads(text)
    return found


# -- what is offered -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", tools.TOOLS.values(), ids=tools.TOOLS)
def test_a_tool_says_what_it_takes_and_answers(tool: tools.Tool) -> None:
    for schema in (tool.input_schema, tool.output_schema):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False


def test_a_tool_says_what_it_may_do() -> None:
    """The protocol's own defaults assume the worst of a tool that says nothing."""
    told = {name: server._shown(tool).annotations for name, tool in tools.TOOLS.items()}
    assert {name for name, one in told.items() if one and one.destructive_hint} == {"stop_server", "cleanup"}
    assert {name for name, one in told.items() if one and not one.read_only_hint} == {
        *("start_server", "stop_server", "cleanup"),
    }
    assert all(one and one.idempotent_hint and one.open_world_hint is False for one in told.values())


@pytest.mark.parametrize("tool", tools.TOOLS.values(), ids=tools.TOOLS)
def test_what_a_client_does_not_say_is_as_the_command_has_it(tool: tools.Tool) -> None:
    """So that a project's own time to wait, or to end, is what a client gets, too."""
    needed = dict.fromkeys(tool.input_schema.get("required", ()), "web")
    options = tools.call(tool, tools.parse(tool, needed), directory=None).options
    usual = dict(VERBS[tool.verb][3])
    changed = {name for name, value in usual.items() if options[name] != value}
    assert options.keys() == usual.keys()
    assert changed - {"json", "target", "targets"} == {
        "get_server_logs": {"max_bytes"},
        "cleanup": {"all"},
    }.get(tool.name, set())


def test_what_a_client_puts_into_a_context_is_short() -> None:
    shown = [server._shown(tool).model_dump_json(by_alias=True) for tool in tools.TOOLS.values()]
    assert sum(map(len, shown)) < 19_000, "every agent pays for the list of tools, before any call"
    for tool in tools.TOOLS.values():
        names = set(contract.schema(tool.verb)["$defs"][tool.verb]["properties"])
        assert set(tool.output_schema["properties"]["data"]["properties"]) == names


def test_a_short_schema_allows_what_the_whole_one_allows() -> None:
    whole = {
        "$defs": {
            "one": {
                "type": "object",
                "properties": {"title": {"$ref": "#/$defs/one/$defs/id"}},
                "allOf": [True],
            }
            | {"$defs": {"id": {"type": "string", "pattern": "^x", "description": "."}}},
            "code": {"enum": [f"c{number}" for number in range(11)]},
        },
        "type": "object",
        "properties": {
            "one": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/one"}]},
            "word": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
            "some": {"type": "array", "items": {"$ref": "#/$defs/code"}},
        },
        "required": ["one"],
        "if": {"properties": {"word": {"const": "a"}}},
        "then": {"required": ["some"]},
    }
    assert brief.brief(whole) == {
        "type": "object",
        "properties": {
            "one": {"type": ["object", "null"], "properties": {"title": {"type": "string"}}},
            "word": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
            "some": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["one"],
        "additionalProperties": False,
    }


def test_arguments_are_checked_and_their_values_not_repeated() -> None:
    start = tools.TOOLS["start_server"]
    for wrong, place in (
        ({"command": "npm run dev"}, "command"),
        ({"command": []}, "command"),
        ({"port": "3000"}, "port"),
        ({"env": {"TOKEN": 1}}, "env.TOKEN"),
        ({"env": {"A=hunter2": "x"}}, "env"),
        ({"env": {"": "x"}}, "env"),
        ({"secret": "hunter2"}, "secret"),
    ):
        with pytest.raises(UsageError) as caught:
            tools.parse(start, wrong)
        assert f"`{place}" in caught.value.message
        assert "hunter2" not in caught.value.message
    with pytest.raises(UsageError, match="target"):
        tools.parse(tools.TOOLS["stop_server"], None)


def test_roots_confine_paths(temporary: Path) -> None:
    shop, sibling = temporary / "my shop", temporary / "my shop 2"
    for folder in (shop / "apps", sibling):
        folder.mkdir(parents=True)
    (shop / "out").symlink_to(sibling)
    (temporary / "in").symlink_to(shop / "apps")
    roots = Roots.named([f"file://{temporary}/my%20shop"], otherwise="/")
    assert roots.resolve(None) == str(shop)
    assert roots.resolve("apps") == roots.resolve(str(temporary / "in")) == str(shop / "apps")
    for outside in ("..", "out", str(sibling), str(temporary), "/", "apps/../../my shop 2"):
        with pytest.raises(UsageError, match="outside"):
            roots.resolve(outside)
    with pytest.raises(UsageError, match="no folder"):
        roots.resolve("nope")
    for no_path in ("a\0b", "\ud800"):
        with pytest.raises(UsageError, match="no path"):
            roots.resolve(no_path)
    assert Roots.named([], otherwise=str(sibling)).folders == (str(sibling),)
    with pytest.raises(UsageError, match="no folder of this machine"):
        Roots.named(["https://example.com/", "file://elsewhere/shop"], otherwise="/").resolve(None)


# -- one client ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_client_does_all_that_the_command_line_does(mode: str, devsup: Devsup, project: Path) -> None:
    port = free_port()
    command = server_argv("web", "--port", port, "--lines", 3, "--delay", 0.5)
    told: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        del total
        told.append((progress, message))

    async def work() -> None:
        async with connected(project, mode=mode) as client:
            listed = await client.list_tools()
            assert [tool.name for tool in listed.tools] == list(tools.TOOLS)
            for tool in listed.tools:
                hints = tool.annotations
                assert hints is not None
                assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint)
                assert hints.open_world_hint is False
            given = {"app": "web", "command": command, "port": port, "env": {"SAID": "so"}}
            started = await client.call_tool("start_server", given, progress_callback=hear)
            first = started.structured_content["data"]["server"]
            assert (first["state"], first["port"], first["owner"]) == ("ready", port, "robot")
            again = (await asked(client, "start_server", app="web", command=command))["data"]
            assert (again["reused"], again["server"]["pid"]) == (True, first["pid"])
            for tool_, argv, arguments in (
                ("list_servers", ["list"], {}),
                ("server_status", ["status", "web"], {"target": "web"}),
                ("get_server_logs", ["logs", "web", "-n", 2], {"target": "web", "lines": 2}),
                ("server_status", ["status", "nope"], {"target": "nope"}),
                ("stop_server", ["stop", os.getpid()], {"target": str(os.getpid())}),
            ):
                mine = await asked(client, tool_, **arguments)
                cli = await anyio.to_thread.run_sync(partial(devsup, *argv, "--json"))
                assert stable(mine) == stable(cli), tool_
            page = (await asked(client, "get_server_logs", target="web"))["data"]
            assert "line 2" in page["text"]
            later = await asked(client, "get_server_logs", target="web", after=page["next_cursor"])
            assert later["data"]["text"] == ""
            well = (await asked(client, "check_server", target="web", after=page["next_cursor"]))["data"]
            assert (well["verdict"], well["http"]["status"], well["new_errors"]) == ("ok", 200, [])
            lost = (await asked(client, "check_server", target="web", path="/no"))["data"]
            assert lost["http"]["path"] == "/no"
            found = (await asked(client, "get_server_logs", target="web", errors=True))["data"]
            assert found["errors"] == []
            grep = (await asked(client, "get_server_logs", target="web", grep="line 1", since="1h"))["data"]
            assert [line.strip() for line in grep["text"].splitlines()] == ["line 1"]
            (stop,) = (await asked(client, "stop_server", target=str(first["pid"])))["data"]["results"]
            assert (stop["outcome"], stop["port_free"]) == ("stopped", True)
            await asked(client, "start_server", app="web", command=command, wait=False)
            (stop,) = (await asked(client, "cleanup"))["data"]["results"]
            assert stop["outcome"] == "stopped"
            wrong = await asked(client, "start_server", command="npm run dev")
            assert wrong["error"]["code"] == "usage"

    run(work)
    assert told
    assert [count for count, _ in told] == sorted({count for count, _ in told})
    assert "dev_server_web" in (told[0][1] or "")


@pytest.mark.parametrize("mode", MODES)
def test_roots_confine_servers(mode: str, devsup: Devsup, project: Path, temporary: Path) -> None:
    """Not even by its pid or port is a server touched whose folder the client may not use."""
    other = temporary / "other"
    other.mkdir()
    (other / "devsup.toml").touch()
    port = free_port()
    theirs = devsup(
        "start", "api", "--json", "--port", port, "--", *server_argv("web", "--port", port), cwd=other
    ).data["server"]
    roots = [project]

    async def work() -> None:
        async with connected(other, mode=mode, roots=roots, name="") as client:
            assert (await asked(client, "list_servers"))["data"]["servers"] == []
            for tool in ("stop_server", "server_status", "get_server_logs"):
                for target in (str(theirs["pid"]), f":{port}", theirs["id"]):
                    refused = await asked(client, tool, target=target)
                    assert refused["error"]["code"] in ("usage", "not_found"), refused
            for folder in (other, "/", "../other"):
                refused = await asked(client, "cleanup", project=str(folder))
                assert "outside" in refused["error"]["message"]
            assert (await asked(client, "cleanup"))["data"]["results"] == []
            assert is_listening(port)
            roots[:] = [other]
            if mode == "legacy":
                await client.session.send_notification(types.RootsListChangedNotification())
            with anyio.fail_after(20):  # the notice is on its way
                while not (await asked(client, "list_servers"))["data"]["servers"]:
                    pass
            assert (
                "outside" in (await asked(client, "list_servers", project=str(project)))["error"]["message"]
            )
            (stop,) = (await asked(client, "stop_server", target=f":{port}"))["data"]["results"]
            assert stop["outcome"] == "stopped"

    run(work)


def test_an_app_beyond_the_root_is_not_started(devsup: Devsup, project: Path) -> None:
    """The project may be larger than what the client may use: its other apps are not."""
    for name in ("web", "api"):
        folder = project / "apps" / name
        folder.mkdir(parents=True)
        manifest = {"name": name, "scripts": {"dev": "next dev"}, "dependencies": {"next": "16.0.0"}}
        (folder / "package.json").write_text(json.dumps(manifest))

    async def work() -> None:
        async with connected(project / "apps" / "web") as client:
            refused = await asked(client, "start_server", app="api")
            assert (refused["error"]["code"], "outside" in refused["error"]["message"]) == ("usage", True)
            mine = await asked(client, "start_server", app="web")
            assert mine["error"]["code"] == "missing_dependencies"

    run(work)
    assert devsup("list", "--json").data["servers"] == []


@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_start_leaves_a_server_that_is_listed(mode: str, devsup: Devsup, project: Path) -> None:
    slow = server_argv("web", "--delay", 60)

    async def work() -> None:
        async with connected(project, mode=mode) as client, anyio.create_task_group() as group:
            given = {"app": "web", "command": slow, "port": free_port()}
            group.start_soon(client.call_tool, "start_server", given)
            with anyio.fail_after(30):
                while True:
                    servers = (await asked(client, "list_servers"))["data"]["servers"]
                    if servers and servers[0]["pid"]:
                        break
            group.cancel_scope.cancel()
        assert servers[0]["state"] == "starting"

    run(work)
    (server,) = devsup("list", "--json").data["servers"]
    assert server["state"] == "starting"
    assert devsup("stop", "web", "--take-over").code == 0


def test_a_cancelled_wait_keeps_no_thread(devsup: Devsup, project: Path) -> None:
    """A client that gives up often would else run out of threads, each of them with a wait of its own."""
    port = free_port()
    assert devsup("start", "web", "--port", port, "--", *server_argv("web", "--port", port)).code == 0
    listener = server._Listener(cast("Any", None))
    supervisor = server._Supervisor(str(project), [str(project)], listener.rest)
    end = supervisor.logs("web").next_cursor
    call = tools.call(
        tools.TOOLS["get_server_logs"],
        tools.parse(tools.TOOLS["get_server_logs"], {"target": "web", "after": end, "wait": 600}),
        directory=None,
    )
    found: list[Answered] = []
    waiting = threading.Thread(
        target=lambda: found.append(handlers.run(call, listener, lambda: supervisor)), daemon=True
    )
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    listener.cancelled.set()
    waiting.join(20)
    assert [answer.error.code for answer in found if answer.error] == ["interrupted"]
    with pytest.raises(KeyboardInterrupt):
        supervisor.check("web")
    assert devsup("stop", "web").code == 0


def raw(child: subprocess.Popen[str], method: str, params: dict[str, Any], number: int | None) -> None:
    """Send a message as a client writes it."""
    assert child.stdin is not None
    about = {} if number is None else {"id": number}
    child.stdin.write(json.dumps({"jsonrpc": "2.0", **about, "method": method, "params": params}) + "\n")
    child.stdin.flush()


@pytest.mark.parametrize("end", ["EOF", "SIGTERM", "SIGINT"])
def test_it_ends_with_its_client_and_servers_go_on(
    end: str, devsup: Devsup, devsup_popen: DevsupPopen
) -> None:
    child = devsup_popen("mcp", env={"DEVSUP_OUTPUT": "json"})
    assert child.stdin is not None
    assert child.stdout is not None
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    raw(child, "initialize", hello, 1)
    assert json.loads(child.stdout.readline())["result"]["serverInfo"]["name"] == "devsup"
    raw(child, "notifications/initialized", {}, None)
    child.stdin.write("no JSON at all\n")
    raw(child, "tools/call", {"name": "rm_rf", "arguments": {}}, 7)
    answers = map(json.loads, child.stdout)
    assert "rm_rf" in next(one for one in answers if one.get("id") == 7)["error"]["message"]
    slow = {"app": "web", "command": server_argv("web", "--delay", 60), "port": free_port()}
    raw(child, "tools/call", {"name": "start_server", "arguments": slow}, 2)
    wait_until(lambda: [one for one in devsup("list", "--json").data["servers"] if one["pid"]], 30)
    if end == "EOF":
        child.stdin.close()
    else:
        child.send_signal(getattr(signal, end))
    assert child.wait(20) == (0 if end == "EOF" else -getattr(signal, end))
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in child.stdout)
    assert child.stderr is not None
    assert child.stderr.read() == ""
    assert devsup("list", "--json").data["servers"][0]["state"] == "starting"
    assert devsup("stop", "web", "--take-over").code == 0


def test_calls_of_one_client_run_side_by_side(devsup: Devsup, project: Path) -> None:
    port = free_port()
    given = {"app": "web", "command": server_argv("web", "--port", port, "--delay", 0.5), "port": port}
    pids: list[int] = []

    async def work() -> None:
        async with connected(project) as client, anyio.create_task_group() as group:

            async def start() -> None:
                pids.append((await asked(client, "start_server", **given))["data"]["server"]["pid"])

            for _ in range(8):
                group.start_soon(start)

    run(work)
    assert len(pids) == 8
    assert len(set(pids)) == 1
    assert devsup("stop", "web", "--take-over").code == 0


# -- without a client ----------------------------------------------------------------------------------


def test_without_the_sdk_it_says_how_to_get_it(project: Path, home: Path) -> None:
    assert home.is_dir()
    code = (
        "import sys; sys.modules['mcp'] = None; sys.modules['mcp_types'] = None;"
        "from devsup.__main__ import main; raise SystemExit(main(['mcp', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False, input=""
    )
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (9, "missing_dependencies")
    assert "pip install 'devsup[mcp]'" in error["hint"]
    assert not error["hint"].startswith("devsup ")


def test_a_person_is_told_that_it_is_for_clients(project: Path, home: Path) -> None:
    assert home.is_dir()
    master, slave = pty.openpty()
    done = subprocess.run(
        devsup_argv("mcp", "--json"), cwd=project, stdin=slave, capture_output=True, text=True, check=False
    )
    os.close(slave)
    os.close(master)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["hint"]) == (2, "usage", "devsup mcp --help")


# -- many ----------------------------------------------------------------------------------------------


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_twenty_clients_and_twenty_shells_start_one_server(
    devsup: Devsup, devsup_popen: DevsupPopen, project: Path
) -> None:
    port = free_port()
    command = server_argv("web", "--port", port, "--delay", 0.5)
    given = {"app": "web", "command": command, "port": port, "timeout": 120}
    found: list[tuple[int, bool]] = []

    async def client_starts(gate: anyio.Event, here: Callable[[], None]) -> None:
        async with connected(project) as client:
            here()
            await gate.wait()
            data = (await asked(client, "start_server", **given))["data"]
            found.append((data["server"]["pid"], data["reused"]))

    async def work() -> None:
        gate, ready, all_here = anyio.Event(), 0, anyio.Event()

        def here() -> None:
            nonlocal ready
            ready += 1
            if ready == 20:
                all_here.set()

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(client_starts, gate, here)
            await all_here.wait()
            start = ("start", "web", "--json", "--timeout", 120, "--port", port, "--", *command)
            shells = [devsup_popen(*start) for _ in range(20)]
            gate.set()
        for shell in shells:
            out, err = await anyio.to_thread.run_sync(shell.communicate)
            assert (shell.returncode, err) == (0, ""), out
            data = json.loads(out)["data"]
            found.append((data["server"]["pid"], data["reused"]))

    anyio.run(work)
    assert len(found) == 40
    assert len({pid for pid, _ in found}) == 1
    assert [reused for _, reused in found].count(False) == 1
    (server,) = devsup("list", "--json").data["servers"]
    assert server["pid"] == found[0][0]
    assert devsup("stop", "web", "--take-over").code == 0
    assert not is_listening(port)

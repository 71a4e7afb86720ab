"""
Every answer, on real servers, has the shape that the shipped schemas promise.

Also: what of an answer goes where when a caller does not listen, goes away, or stops the call half-way.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource

from devsup import errors
from devsup.cli import contract
from devsup.cli.grammar import VERBS
from devsup.models import (
    CheckResult,
    Finding,
    FleetServer,
    Health,
    HealthFinding,
    HealthPart,
    HistoryEntry,
    HostList,
    HostSeen,
    LockList,
    LockStatus,
    LogPage,
    Metrics,
    MonitorRound,
    PoolList,
    PoolStatus,
    PortList,
    PortUse,
    Pruned,
    PruneResult,
    Server,
    ServerList,
    StartResult,
    State,
    StatusResult,
    StopResult,
    Story,
    StoryEntry,
    Unmanaged,
)
from tests.cli_support import make_server
from tests.support import Answer, devsup_argv, free_port, hear, server_argv, wait_until, with_changes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup, DevsupPopen

SCHEMAS = {
    path.name.removesuffix(".json"): json.loads(path.read_text())
    for path in (files("devsup") / "schemas").iterdir()
    if path.name.endswith(".json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)


def validate(name: str, value: object) -> None:
    """Fail unless ``value`` matches the schema of this name."""
    Draft202012Validator(SCHEMAS[name], registry=REGISTRY).validate(value)


def checked(answer: Answer, verb: str) -> dict[str, Any]:
    """Return the envelope of ``answer`` after a look at its shape, streams and exit status."""
    assert answer.err == "", answer
    assert answer.out.endswith("\n"), answer
    assert answer.out.count("\n") == 1, answer
    envelope = answer.json
    validate("envelope", envelope)
    if envelope["data"] is not None:
        validate(verb, envelope["data"])
    if verb in VERBS:
        Draft202012Validator(contract.schema(verb)).validate(envelope)
    code = envelope["error"]["code"] if envelope["error"] else None
    assert answer.code == EXITS[code], answer
    return envelope


EXITS: dict[str | None, int] = {None: 0} | {
    kind.code: kind.exit_code for kind in (getattr(errors, name) for name in errors.__all__)
}


# -- the schemas themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == f"urn:devsup:schema:1:{name}"


def test_every_command_has_a_schema() -> None:
    assert set(VERBS) <= set(SCHEMAS)


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        ("server", Server),
        ("unmanaged", Unmanaged),
        ("start", StartResult),
        ("restart", StartResult),
        ("ports", PortList),
        ("hosts", HostList),
        ("pool", PoolList),
        ("fleet-server", FleetServer),
        ("locks", LockList),
        ("prune", PruneResult),
        ("adopt", StartResult),
        ("wait", StartResult),
        ("list", ServerList),
        ("status", StatusResult),
        ("logs", LogPage),
        ("finding", Finding),
        ("check", CheckResult),
        ("events", HistoryEntry),
        ("doctor", Health),
        ("why", Story),
        ("monitor", MonitorRound),
        ("metrics", Metrics),
    ],
)
def test_a_schema_names_the_fields_of_its_record(schema: str, record: Any) -> None:
    """`notes` are the envelope's."""
    assert list(SCHEMAS[schema]["properties"]) == [name for name in record._fields if name != "notes"]
    assert SCHEMAS[schema]["required"] == list(SCHEMAS[schema]["properties"])


def test_the_items_of_a_list_are_their_records() -> None:
    for verb, name, record in (
        ("ports", "ports", PortUse),
        ("hosts", "hosts", HostSeen),
        ("pool", "pools", PoolStatus),
        ("prune", "pruned", Pruned),
        ("locks", "locks", LockStatus),
        ("doctor", "parts", HealthPart),
        ("why", "story", StoryEntry),
    ):
        item = SCHEMAS[verb]["properties"][name]["items"]
        assert list(item["properties"]) == item["required"] == list(record._fields)
    finding = SCHEMAS["doctor"]["properties"]["parts"]["items"]["properties"]["findings"]["items"]
    assert list(finding["properties"]) == finding["required"] == list(HealthFinding._fields)


def test_the_schemas_name_every_state_outcome_and_code() -> None:
    assert SCHEMAS["server"]["properties"]["state"]["enum"] == [state.value for state in State]
    result = SCHEMAS["stop"]["properties"]["results"]["items"]
    assert list(result["properties"]) == list(StopResult._fields)
    codes = SCHEMAS["envelope"]["$defs"]["error"]["properties"]["code"]["enum"]
    assert codes == sorted({kind for kind in EXITS if kind is not None})


def test_a_schema_refuses_what_it_should() -> None:
    good = json.loads(json.dumps(make_server().asdict()))
    validate("server", good)
    for change in ({"state": "fine"}, {"pid": "4711"}, {"started_at": "yesterday"}, {"extra": 1}):
        with pytest.raises(ValidationError):
            validate("server", good | change)
    with pytest.raises(ValidationError):
        validate("server", {name: value for name, value in good.items() if name != "url"})


# -- every command, on real processes ------------------------------------------------------------------


def test_the_answers_of_one_server_s_life(devsup: Devsup, project: Path) -> None:
    """From an empty project to an ended server, each command answers in its shape."""
    port = free_port()
    command = server_argv("web", "--port", port, "--lines", 3)
    assert checked(devsup("list", "--json"), "list")["data"] == {"servers": [], "unmanaged": []}

    first = checked(devsup("start", "web", "--json", "--", *command), "start")["data"]
    assert (first["reused"], first["server"]["state"], first["server"]["port"]) == (False, "ready", port)
    second = checked(devsup("start", "web", "--json", "--", *command), "start")["data"]
    assert (second["reused"], second["server"]["pid"]) == (True, first["server"]["pid"])

    (listed,) = checked(devsup("--json", "list"), "list")["data"]["servers"]
    assert (listed["session"], listed["project"]) == ("dev_server_web", str(project))
    pid = first["server"]["pid"]
    for target in ("web", "dev_server_web", str(pid), f":{port}"):
        status = checked(devsup("status", target, "--json"), "status")["data"]
        assert status["server"]["id"] == first["server"]["id"]
        assert pid in [process["pid"] for process in status["processes"]]
    assert checked(devsup("url", "web", "--json"), "url")["data"]["port"] == port
    assert checked(devsup("wait", "web", "--json"), "wait")["data"]["server"]["pid"] == pid

    page = checked(devsup("logs", "web", "--json", "-n", 2), "logs")["data"]
    assert len(page["text"].splitlines()) == 2
    following = checked(devsup("logs", "web", "--json", "--after", page["next_cursor"]), "logs")["data"]
    assert (following["text"], following["ended"]) == ("", False)

    again = checked(devsup("restart", "web", "--json"), "restart")["data"]
    assert again["server"]["id"] == first["server"]["id"]
    assert again["server"]["generation"] > first["server"]["generation"]

    (result,) = checked(devsup("stop", "web", "--json"), "stop")["data"]["results"]
    assert (result["outcome"], result["survivors"], result["port_free"]) == ("stopped", [], True)
    (result,) = checked(devsup("stop", "web", "--json"), "stop")["data"]["results"]
    assert result["outcome"] == "already_stopped"
    gone = checked(devsup("wait", "web", "--gone", "--json"), "wait")["data"]
    assert gone["server"]["state"] == "stopped"
    assert checked(devsup("list", "-a", "--json"), "list")["data"]["servers"][0]["state"] == "stopped"
    assert checked(devsup("logs", "web", "--json"), "logs")["data"]["ended"] is True
    assert checked(devsup("version", "--json"), "version")["ok"] is True
    assert checked(devsup("start", "--help", "--json"), "help")["ok"] is True


def test_the_answers_to_what_cannot_be(devsup: Devsup) -> None:
    """Failures have the same envelope, their code, and what a program needs in `details`."""
    port = free_port()
    refused: list[tuple[tuple[object, ...], int]] = [
        (("status", "nope"), 3),
        (("logs", "nope"), 3),
        (("url", "nope"), 3),
        (("wait", "nope"), 3),
        (("restart", "nope"), 3),
        (("stop", "nope"), 3),
        (("start", "nope"), 3),
        (("stop", "1"), 12),
        (("stop", os.getpid()), 12),
        (("start", "x", "--", "no-such-program-at-all"), 9),
        (("start", "--port", "0"), 2),
        (("logs", "nope", "--after", "x:y"), 3),
    ]
    for argv, code in refused:
        answer = devsup(*argv, "--json") if "--" not in argv else devsup("--json", *argv)
        assert answer.code == code, answer
        assert checked(answer, str(argv[0]))["error"]["hint"]

    crash = devsup("start", "c", "--json", "--", *server_argv("crasher"))
    details = checked(crash, "start")["error"]["details"]
    assert (crash.code, isinstance(details["log_tail"], str)) == (5, True)

    devsup("start", "a", "--port", port, "--", *server_argv("web"))
    taken = checked(devsup("start", "b", "--port", port, "--json", "--", *server_argv("web")), "start")
    assert (taken["error"]["code"], taken["error"]["details"]["holder"]["ours"]) == ("port_taken", True)
    other = checked(devsup("start", "a", "--json", "--", *server_argv("silent")), "start")
    assert other["error"]["code"] == "name_taken"
    slow = ("--port", free_port(), "--", *server_argv("web", "--delay", 60))
    late = devsup("start", "s", "--json", "--timeout", 0.2, *slow)
    envelope = checked(late, "start")
    assert (late.code, envelope["error"]["code"]) == (6, "not_ready")
    assert envelope["data"]["server"]["state"] == "starting"
    assert checked(devsup("url", "s", "--json"), "url")["error"]["code"] == "not_ready"
    results = checked(devsup("stop", "a", "nope", "s", "--json"), "stop")["data"]["results"]
    assert [one["outcome"] for one in results] == ["stopped", "not_found", "stopped"]


def test_a_hostile_home_is_an_answer(devsup: Devsup, temporary: Path) -> None:
    (temporary / "file").touch()
    for verb in ("list", "stop --all", "status x"):
        answer = devsup(*verb.split(), "--json", env={"DEVSUP_HOME": str(temporary / "file")})
        assert checked(answer, verb.split()[0])["error"]["code"] == "registry_unusable"


def test_secrets_of_env_and_commands_are_in_no_answer(devsup: Devsup) -> None:
    port = free_port()
    argv = (
        "--env",
        "API_TOKEN=hunter2222",
        "--",
        *server_argv("web", "--port", port, "--password", "swordfish1"),
    )
    said = [devsup("start", "web", "--json", *argv), devsup("list", "--json"), devsup("status", "web")]
    said += [devsup("-v", "start", "web", "--json", *argv), devsup("stop", "web", "--json")]
    for answer in said:
        assert answer.code == 0, answer
        assert "hunter2222" not in answer.out + answer.err
        assert "swordfish1" not in answer.out + answer.err
    assert "***" in said[0].out


# -- callers that go away ------------------------------------------------------------------------------


def test_a_follower_gets_one_envelope_a_line(devsup: Devsup, devsup_popen: DevsupPopen) -> None:
    devsup("start", "web", "--", *server_argv("web", "--port", free_port(), "--lines", 3))
    follower = devsup_popen("logs", "web", "-f", "--json")
    first = json.loads(hear(follower))
    validate("envelope", first)
    validate("logs", first["data"])
    assert "line 2" in first["data"]["text"]
    devsup("stop", "web")
    out, err = follower.communicate(timeout=20)
    assert (follower.returncode, err) == (0, "")
    pages = [json.loads(line) for line in out.splitlines()]
    assert pages[-1]["data"]["ended"] is True


def test_who_watches_locks_gets_one_envelope_a_look(devsup_popen: DevsupPopen) -> None:
    watcher = devsup_popen("locks", "--watch", "--json")
    for _ in range(2):
        look = json.loads(hear(watcher))
        validate("envelope", look)
        validate("locks", look["data"])
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(20) == 143


def test_a_reader_that_goes_away_hears_no_traceback(devsup: Devsup, devsup_popen: DevsupPopen) -> None:
    """`devsup logs -f | head -1`: the next page meets a closed pipe."""
    chatty = ("start", "c", "--", *server_argv("web", "--port", free_port(), "--lines", 50))
    devsup(*chatty)
    for argv in (
        ("logs", "c", "-f"),
        ("list",),
        ("list", "--json"),
        ("start", "--help"),
        ("--help", "--json"),
    ):
        child = devsup_popen(*argv)
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        if "-f" in argv:
            devsup("stop", "c")
        assert child.stderr.read() == ""
        assert child.wait(20) == 0


def test_a_follower_of_a_silent_server_ends_with_its_reader_and_costs_nothing(
    devsup: Devsup, devsup_popen: DevsupPopen
) -> None:
    """`devsup logs -f | head -1`, or an agent that was killed: nobody would ever end the follower."""
    devsup("start", "c", "--", *server_argv("web", "--port", free_port(), "--lines", 3))
    for flags in ([], ["--json"]):
        follower = devsup_popen("logs", "c", "-f", *flags)
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert hear(follower)
        process = psutil.Process(follower.pid)
        spent = process.cpu_times()
        with pytest.raises(subprocess.TimeoutExpired):
            follower.wait(8)  # it waits, and so do we, for as long as the clock ticks are too coarse
        now = process.cpu_times()
        ticks = round((now.user + now.system - spent.user - spent.system) * os.sysconf("SC_CLK_TCK"))
        assert ticks <= 5  # a row read each 100 ms was 10
        follower.stdout.close()
        assert follower.wait(20) == 0
        assert follower.stderr.read() == ""
    assert devsup("stop", "c").code == 0


@pytest.mark.parametrize("verb", ["list", "status", "url", "logs", "logs -f", "start", "stop"])
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["plain", "json"])
def test_at_a_terminal_a_full_disk_is_one_line(
    verb: str, flags: list[str], devsup: Devsup, project: Path
) -> None:
    """Its stdout is a file on a full disk, stderr a terminal: Rich draws, and must not say so itself."""
    port = free_port()
    web = ["web", "--port", port, "--", *server_argv("web", "--lines", 3)]
    devsup("start", *web)
    words = [*flags, *verb.split(), *(web if verb == "start" else ["web"] if verb != "list" else [])]
    master, slave = pty.openpty()
    with open("/dev/full", "w") as full:
        done = subprocess.Popen(
            devsup_argv(*words),
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=slave,
            env=with_changes({"TERM": "xterm-256color"}),
        )
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 4096):
            seen += chunk
    except OSError:
        pass  # how a pseudo-terminal says that nobody has it open any more
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "")
    devsup("stop", "web")
    assert done.wait(20) == 1
    assert text.endswith("error: the answer could not be written: No space left on device\n")
    # All before it was the spinner, which is wiped away.
    assert "Traceback" not in text
    assert text.count("error") == 1


def test_a_pipe_that_does_not_block_gets_the_whole_answer(devsup: Devsup, project: Path) -> None:
    """Node makes the pipes that it shares non-blocking: a long answer meets a full one."""
    devsup("start", "c", "--", *server_argv("web", "--port", free_port(), "--lines", 30000))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    argv = devsup_argv("logs", "c", "--json", "-n", 30000, "--max-bytes", 1000000)
    with subprocess.Popen(argv, cwd=project, env=with_changes(None), stdout=writer) as child:
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            answer = json.loads(stream.read())
    assert child.returncode == 0
    assert answer["data"]["text"].count("\n") > 25000
    assert devsup("stop", "c").code == 0


def test_an_answer_that_cannot_be_written_is_a_failure(devsup: Devsup, project: Path) -> None:
    assert devsup("list").code == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            devsup_argv("list", "--json"),
            cwd=project,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=with_changes(None),
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the answer could not be written: No space left on device\n",
    )


def test_no_file_of_ours_takes_the_number_of_a_closed_stream() -> None:
    fill = "from devsup.__main__ import _fill_standard_descriptors as fill; fill()"
    code = f"import os; {fill}; print(os.open('/', os.O_RDONLY))"
    argv = shlex.join([sys.executable, "-c", code])
    for closed in ("2>&-", "0<&- 2>&-"):
        done = subprocess.run(["sh", "-c", f"{argv} {closed}"], stdout=subprocess.PIPE, text=True, check=True)
        assert int(done.stdout) > 2


def test_closed_streams_do_no_harm(devsup: Devsup, project: Path) -> None:
    """A file that took the number of stderr would get our steps written into it: the registry's, say."""
    argv = shlex.join(devsup_argv("-v", "start", "web", "--", *server_argv("web", "--port", free_port())))
    for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{argv} {closed}"], cwd=project, env=with_changes(None), check=False
        )
        assert done.returncode == 0
        assert [one["state"] for one in devsup("list", "--json").data["servers"]] == ["ready"]
        assert devsup("list", "--json").notes == []
    assert "devsup +" not in devsup("logs", "web").out
    assert devsup("stop", "web").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_start_that_is_interrupted_says_what_became_of_its_server(
    number: signal.Signals, code: int, devsup: Devsup, devsup_popen: DevsupPopen
) -> None:
    """The server goes on starting, tracked: the caller can wait for it or stop it."""
    start = devsup_popen(
        "start", "w", "--json", "--", *server_argv("web", "--port", free_port(), "--delay", 60)
    )
    server = wait_until(lambda: [one for one in devsup("list", "--json").data["servers"] if one["pid"]], 20)[
        0
    ]
    start.send_signal(number)
    out, err = start.communicate(timeout=20)
    envelope = checked(Answer((), start.returncode, out, err), "start")
    assert start.returncode == code
    assert envelope["error"]["code"] == ("interrupted" if code == 130 else "terminated")
    assert re.search(r"`?(dev_server_)?w`?", envelope["error"]["message"])
    assert envelope["error"]["hint"]
    assert devsup("status", "w", "--json").data["server"]["pid"] == server["pid"]
    assert devsup("stop", "w").code == 0


def test_a_wait_and_a_follower_can_be_interrupted(devsup: Devsup, devsup_popen: DevsupPopen) -> None:
    devsup("start", "w", "--no-wait", "--port", free_port(), "--", *server_argv("web", "--delay", 60))
    for argv in (("wait", "w"), ("logs", "w", "-f")):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            child = devsup_popen(*argv, "--json", "-v")
            assert child.stderr is not None
            assert child.stderr.readline()  # a step: its handlers are in place
            child.send_signal(number)
            out, _ = child.communicate(timeout=20)
            assert child.returncode == code, (argv, out)
            assert json.loads(out.splitlines()[-1])["error"]["code"] in ("interrupted", "terminated")
    assert devsup("stop", "w").code == 0

"""What a caller reads: words, streams and exit statuses, on a supervisor that says what it is told to."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from rich.console import Console

from devsup import __version__, errors, trace
from devsup.__main__ import main
from devsup.cli import handlers, plain, screen
from devsup.cli.answer import Answer, write
from devsup.cli.verbs import up
from devsup.errors import (
    DevsupError,
    ExitedEarly,
    Interrupted,
    NotFound,
    NotReady,
    PortTaken,
)
from devsup.models import (
    LogPage,
    Member,
    Outcome,
    ServerList,
    StartResult,
    State,
    StopResults,
    Unmanaged,
    UpResult,
)
from tests.cli_support import StandIn, make_server, make_stop
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


class Said(NamedTuple):
    """Exit status and streams of a call."""

    code: int
    out: str
    err: str


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in where handlers look for the supervisor."""
    stand_in = StandIn()
    monkeypatch.setattr("devsup.supervisor.Supervisor", stand_in)
    monkeypatch.setattr(trace, "_on", False)
    monkeypatch.chdir(ROOT)
    return stand_in


@pytest.fixture
def call(supervisor: StandIn, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process."""
    del supervisor

    def run(*argv: str) -> Said:
        code = main(argv)
        return Said(code, *capfd.readouterr())

    return run


# -- usage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["strat"], "no command `strat`", "devsup start"),
        (["kill", "web"], "no command `kill`", "devsup stop web"),
        (["stat"], "no command `stat`", "did you mean `devsup status`? see `devsup --help`"),
        (["st", "web"], "no command `st`", "did you mean `devsup start`? see `devsup --help`"),
        (["strat", "--", "sh", "two words"], "no command `strat`", "devsup start -- sh 'two words'"),
        (
            ["strat", "--", "sh", "--token", "hunter2secret"],
            "no command `strat`",
            "did you mean `devsup start`? see `devsup --help`",
        ),
        (["logs", "web", "--tail", "5"], "`devsup logs` has no option `--tail`", "devsup logs web --lines 5"),
        (
            ["logs", "web", "--tail=x"],
            "`devsup logs` has no option `--tail`",
            "did you mean `--lines`? see `devsup logs --help`",
        ),
        (["xyzzy"], "no command `xyzzy`", "devsup --help"),
        (["--nope"], "`devsup` has no option `--nope`", "devsup --help"),
        (["--nope", "start"], "`devsup` has no option `--nope`", "devsup --help"),
        (
            ["start", "--prot", "3"],
            "`devsup start` has no option `--prot`",
            "devsup start --port 3",
        ),
        (["list", "-x"], "`devsup list` has no option `-x`", "devsup list --help"),
        (["ls", "-x"], "`devsup ls` has no option `-x`", "devsup ls --help"),
        (["start", "--timeout"], "`--timeout` needs a value", "devsup start --help"),
        (["-C"], "`-C` needs a value", "devsup --help"),
        (["start", "--timeout", "x"], "`--timeout` takes a number of seconds", "devsup start --help"),
        (["start", "--timeout", "nan"], "`--timeout` takes from 0 to 86400 seconds", "devsup start --help"),
        (["stop", "web", "--grace", "-1"], "`--grace` takes from 0 to 86400 seconds", "devsup stop --help"),
        (["logs", "web", "-n", "x"], "`--lines` takes a whole number", "devsup logs --help"),
        (
            ["start", "--with-parent", "x"],
            "`--with-parent` takes the pid of a process",
            "devsup start --help",
        ),
        (["events", "--after", "x"], "`--after` takes the number of an event", "devsup events --help"),
        (["logs", "web", "-n", "-1"], "`--lines` takes a number from 0 to 1000000", "devsup logs --help"),
        (["status"], "`devsup status` needs TARGET", "devsup status --help"),
        (["url", "a", "b"], "`devsup url` takes no argument `b`", "devsup url --help"),
        (["list", "--json=1"], "option `--json` does not take a value", "devsup list --help"),
        (
            ["start", "web", "npm", "run", "dev"],
            "unexpected argument `npm`: a command comes after `--`",
            "devsup start web -- npm run dev",
        ),
        (["start", "--"], "no command after `--`", "devsup start --help"),
        (["stop"], "nothing to stop: name a target, or `--all`", "devsup stop --all"),
        (
            ["stop", "web", "--all"],
            "`--all` means every server: leave out the targets",
            "devsup stop web",
        ),
        (
            ["start", "--port", "99999"],
            "`99999` is no port: give a number from 1 to 65535, or `auto`",
            "devsup start --port auto",
        ),
        (["start", "--env", "secret"], "`--env` number 1 is not of the form K=V", "devsup start --help"),
        (
            ["list", "-C", "/nowhere/at/all"],
            "no folder `/nowhere/at/all`",
            "name an existing folder after -C",
        ),
        (
            ["list", "-C", str(ROOT / "Makefile")],
            f"`{ROOT / 'Makefile'}` is no folder",
            "name an existing folder after -C",
        ),
        (
            ["logs", "web", "-f", "--wait", "1"],
            "`--follow` waits by itself: leave out `--wait`",
            "devsup logs --help",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_says_what_to_type(
    argv: list[str], message: str, hint: str | None, call: Callable[..., Said], supervisor: StandIn
) -> None:
    said = call(*argv)
    shown = f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else "")
    assert said == (2, "", shown)
    as_json = call("--json", *argv)
    assert (as_json.code, as_json.err) == (2, "")
    assert json.loads(as_json.out) == {
        "schema_version": 1,
        "ok": False,
        "data": None,
        "error": {"code": "usage", "message": message, "hint": hint, "retryable": False, "details": {}},
        "notes": [],
    }
    assert supervisor.calls == []


def test_no_arguments_show_help(call: Callable[..., Said]) -> None:
    said = call()
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Usage: devsup ")
    assert "devsup start web" in said.out


def test_no_arguments_are_a_mistake_for_a_program(
    call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that gets help where it expects an answer would go on with nonsense."""
    for argv in (["--json"], ["-v", "--json"]):
        said = call(*argv)
        assert (said.code, json.loads(said.out)["error"]["message"]) == (2, "no command given")
    monkeypatch.setenv("DEVSUP_OUTPUT", "json")
    assert call().code == 2


@pytest.mark.parametrize(
    "verb", ["start", "stop", "list", "status", "logs", "url", "wait", "restart", "version"]
)
def test_help_is_short_and_has_examples(verb: str, call: Callable[..., Said]) -> None:
    said = call(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: devsup {verb} ")
    assert len(said.out.splitlines()) < 45
    assert max(map(len, said.out.splitlines())) <= 80
    assert "list[str]" not in said.out
    if verb != "version":
        assert "Examples:\n    devsup " in said.out
    as_json = json.loads(call(verb, "-h", "--json").out)
    assert (as_json["ok"], as_json["data"]["help"]) == (True, said.out)


def test_the_version_is_said_in_both_ways(call: Callable[..., Said], home: Path) -> None:
    python = ".".join(map(str, sys.version_info[:3]))
    assert call("--version").out == f"devsup {__version__} (Python {python}, {sys.platform})\n"
    data = json.loads(call("version", "--json").out)["data"]
    assert (data["version"], data["home"]) == (__version__, str(home))


def test_options_reach_the_supervisor(call: Callable[..., Said], supervisor: StandIn) -> None:
    call("start", "web", "--port", "3001", "--timeout", "7", "--no-wait", "--env", "A=b=c", "--env", "D=")
    call("start", "--port", "auto", "--", "vite", "--host")
    call("start", "--restart", "always", "--ttl=2h", "--idle-timeout", "9m", "--with-parent", "7")
    call("stop", "web", ":80", "--grace", "1", "--sweep", "--everywhere")
    call("stop", "--all")
    call("ls", "-a", "--everywhere")
    call("wait", "web", "--gone", "--timeout", "2")
    call("logs", "web", "-n", "5", "--after", "3:1", "--max-bytes", "9", "--wait", "0.5")
    call("restart", "web", "--timeout", "8", "--grace", "2")
    start = {"command": None, "port": None, "timeout": None, "wait": True, "env": None, "owner": None}
    start |= dict.fromkeys(("restart", "idle_timeout", "ttl", "with_parent"), None)
    stop = {"everything": False, "grace": None, "sweep": False, "everywhere": False, "owner": None}
    stop |= {"take_over": False}
    plain = {"errors": False, "grep": None, "since": None}
    assert supervisor.calls == [
        (
            "start",
            ("web",),
            start | {"port": 3001, "timeout": 7.0, "wait": False, "env": {"A": "b=c", "D": ""}},
        ),
        ("start", (None,), start | {"port": "auto", "command": ["vite", "--host"]}),
        (
            "start",
            (None,),
            start | {"restart": "always", "ttl": "2h", "idle_timeout": "9m", "with_parent": 7},
        ),
        ("stop", (["web", ":80"],), stop | {"grace": 1.0, "sweep": True, "everywhere": True}),
        ("stop", ([],), stop | {"everything": True}),
        ("list", (), {"everywhere": True, "ended": True}),
        ("wait", ("web",), {"gone": True, "timeout": 2.0}),
        ("logs", ("web",), {"lines": 5, "after": "3:1", "max_bytes": 9, "wait": 0.5} | plain),
        ("restart", ("web",), {"timeout": 8.0, "grace": 2.0, "take_over": False}),
    ]


# -- failures ------------------------------------------------------------------------------------------


def every_error() -> list[DevsupError]:
    """Return one error of each kind."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    return [kind("it did not work", hint="devsup list", details={"port": 3000}) for kind in kinds]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_has_its_code_and_exit_status(
    error: DevsupError, call: Callable[..., Said], supervisor: StandIn
) -> None:
    supervisor.fails(error)
    supervisor.notes.append("the registry was rebuilt")
    assert call("list") == (
        error.exit_code,
        "",
        "note: the registry was rebuilt\nerror: it did not work\n\nhint: devsup list\n",
    )
    said = call("list", "--json")
    assert (said.code, said.err) == (error.exit_code, "")
    answer = json.loads(said.out)
    assert answer["error"] == {
        "code": error.code,
        "message": "it did not work",
        "hint": "devsup list",
        "retryable": error.retryable,
        "details": {"port": 3000},
    }
    assert (answer["ok"], answer["data"], answer["notes"]) == (False, None, ["the registry was rebuilt"])


def test_a_server_that_is_not_ready_yet_is_in_the_answer(
    call: Callable[..., Said], supervisor: StandIn
) -> None:
    """The caller needs its pid and log although the call failed."""
    server = make_server(state=State.STARTING, url=None)
    supervisor.fails(
        NotReady("not yet", data=StartResult(server, reused=False, waited_ms=9, notes=["a note"]))
    )
    said = call("start", "web", "--json")
    answer = json.loads(said.out)
    assert (said.code, answer["ok"], answer["error"]["code"]) == (6, False, "not_ready")
    assert answer["data"]["server"]["pid"] == 4711
    assert (answer["data"]["reused"], answer["data"]["waited_ms"]) == (False, 9)
    assert answer["notes"] == ["a note"]


def test_the_end_of_the_log_and_the_cause_are_shown(call: Callable[..., Said], supervisor: StandIn) -> None:
    details = {
        "exit_code": 1,
        "signal": None,
        "log_tail": "line\nTOKEN=abc\x1b[31m\n",
        "cause": "the port is in use",
    }
    supervisor.fails(ExitedEarly("ended with exit code 1", hint="devsup logs web", details=details))
    assert call("start", "web") == (
        5,
        "",
        (
            "error: ended with exit code 1\n\n  | line\n  | TOKEN=***\n\n"
            "cause: the port is in use\n\nhint: devsup logs web\n"
        ),
    )


def test_so_does_a_bug_in_what_shows_an_answer(
    call: Callable[..., Said], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time; that the second one goes well is not for it to prevent."""
    from devsup.cli import answer

    show, shown = answer.show, []

    def breaks(result: answer.Answer, *, as_json: bool) -> int:
        shown.append(result)
        if len(shown) == 1:
            raise ZeroDivisionError("while it drew")
        return show(result, as_json=as_json)

    monkeypatch.setattr(answer, "show", breaks)
    said = call("list")
    assert said.code == 1
    assert "a bug in devsup: ZeroDivisionError: while it drew" in said.err
    assert len(list((home / "reports").iterdir())) == 1


def test_a_bug_leaves_a_report_and_no_traceback(
    call: Callable[..., Said], supervisor: StandIn, home: Path
) -> None:
    supervisor.fails(ZeroDivisionError("with ghp_abcdef123456"))
    said = call("start", "web", "--env", "A_SECRET=hunter2222", "--json")
    answer = json.loads(said.out)
    assert (said.code, said.err, answer["error"]["code"]) == (1, "", "internal")
    (report,) = (home / "reports").iterdir()
    assert answer["error"]["details"]["report"] == str(report)
    assert str(report) in answer["error"]["message"]
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "Traceback" in text
    assert "call: start" in text
    assert "hunter2222" not in text
    assert "ghp_abcdef123456" not in text + said.out


def test_a_bug_in_a_hostile_home_is_reported_all_the_same(
    call: Callable[..., Said], supervisor: StandIn, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / "file").touch()
    monkeypatch.setenv("DEVSUP_HOME", str(temporary / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    supervisor.fails(RuntimeError("boom"))
    report = json.loads(call("list", "--json").out)["error"]["details"]["report"]
    assert report.startswith(str(temporary / "devsup-report-"))


def test_windows_is_refused_in_a_sentence(call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert call("list") == (9, "", "error: devsup does not run on Windows\n\nhint: run it within WSL\n")
    assert json.loads(call("start", "web", "--json").out)["error"]["code"] == "unsupported_platform"


def test_ctrl_c_is_an_answer_too(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.fails(KeyboardInterrupt())
    assert call("wait", "web") == (130, "", "error: interrupted\n\nhint: devsup list\n")
    assert call("stop", "web").err.startswith("error: interrupted; what has begun goes on\n")
    assert call("logs", "web", "-f") == (130, "", "")
    supervisor.fails(Interrupted("interrupted; `web` goes on starting (pid 3)", hint="devsup wait web"))
    said = call("start", "web", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (130, "interrupted")


def test_sigterm_is_told_apart_from_ctrl_c(
    call: Callable[..., Said], supervisor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_terminated", False)
    with pytest.raises(KeyboardInterrupt):
        handlers.terminate(15, None)
    supervisor.fails(
        Interrupted("interrupted; `web` goes on starting", hint="devsup wait web", details={"pid": 3})
    )
    said = call("start", "web", "--json")
    error = json.loads(said.out)["error"]
    assert (said.code, error["code"], error["details"]) == (143, "terminated", {"pid": 3})
    assert error["message"] == "terminated; `web` goes on starting"


# -- stop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [errors.Busy, errors.LimitReached, errors.NotOurs, errors.Survivors])
def test_a_code_stands_for_the_error_and_not_for_a_kind_of_it(kind: type[DevsupError]) -> None:
    assert handlers.kind_of(kind.code) is kind


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([None, None], 0),
        (["not_found", None], 3),
        (["not_found", "not_ours"], 12),
        (["not_ours", "busy"], 7),
        (["busy", "survivors", "not_found"], 8),
        (["port_held", "registry_unusable"], 11),
        (["registry_unusable", "internal", None], 1),
        (["not_found", "of_a_newer_version"], 1),
    ],
)
def test_the_worst_target_decides(
    codes: list[str | None], expected: int, call: Callable[..., Said], supervisor: StandIn
) -> None:
    supervisor.stops = [
        make_stop(
            f"t{at}",
            error=code,
            outcome=Outcome.FAILED if code else Outcome.STOPPED,
            message=code and f"{code}!",
        )
        for at, code in enumerate(codes)
    ]
    said = call("stop", *(stop.target for stop in supervisor.stops), "--json")
    answer = json.loads(said.out)
    assert (said.code, answer["ok"]) == (expected, expected == 0)
    assert [one["error"] for one in answer["data"]["results"]] == codes
    if expected:
        assert answer["error"]["details"]["failed"] == [
            {"target": f"t{at}", "code": code, "message": f"{code}!"} for at, code in enumerate(codes) if code
        ]


def test_of_several_failures_every_exit_status_has_a_place() -> None:
    """The order that is promised for a stop is a part of the one for all."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DevsupError)
    ]
    placed = {kind.exit_code: handlers.severity(kind.code) for kind in kinds}
    several = sorted(placed.keys() - {14, 130, 143}, key=placed.__getitem__)
    assert [code for code in several if code in (1, 11, 8, 7, 12, 3)] == [1, 11, 8, 7, 12, 3]
    assert len({placed[code] for code in several}) == len(several)
    assert max(placed[code] for code in several) < min(placed[code] for code in (14, 130, 143))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["busy", "not_ready"], 7),
        (["other_owner", "busy", "port_taken"], 7),
        (["exited_early", "missing_executable"], 9),
        (["not_ready", "lease_held_elsewhere"], 13),
        (["registry_unusable", "internal"], 1),
    ],
)
def test_an_up_ends_as_a_stop_would(codes: list[str], expected: int) -> None:
    told: list[dict[str, Any]] = [
        {"code": code, "message": "!", "hint": None, "details": {}} for code in codes
    ]
    error = up._worst([UpResult(one["code"], "failed", None, one) for one in told])
    assert error is not None
    assert error.exit_code == expected
    stops = [make_stop(code, error=code, outcome=Outcome.FAILED, message="!") for code in codes]
    stopped = handlers.worst(stops)
    assert stopped is not None
    assert stopped.exit_code == expected


def test_a_stop_says_what_was_seen(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.stops = [
        make_stop(),
        make_stop(escalated=True, signals=["SIGTERM", "SIGKILL"], left_running=[], port_free=False),
        make_stop(outcome=Outcome.ALREADY_STOPPED, message="pid 5 is now another process"),
        make_stop(
            "gone", server=None, outcome=Outcome.NOT_FOUND, error="not_found", message="no server `gone`"
        ),
        make_stop(
            outcome=Outcome.FAILED,
            survivors=[Member(9, "node x")],
            left_running=[],
            error="survivors",
            message="one survived",
        ),
        make_stop(
            outcome=Outcome.FAILED,
            ms=0,
            signals=[],
            left_running=[],
            port_free=None,
            error="busy",
            message="no answer yet",
        ),
    ]
    said = call("stop", "a", "b", "c", "gone", "e", "f")
    assert said.out.splitlines() == [
        "dev_server_web stopped in 120 ms (SIGTERM); port 3000 is free; left running: 77 adb --token ***",
        "dev_server_web stopped in 120 ms (SIGTERM, SIGKILL); port 3000 is still held",
        "dev_server_web already stopped",
        "dev_server_web not stopped in 120 ms (SIGTERM); port 3000 is free; survivors: 9 node x",
        "dev_server_web not stopped",
    ]
    assert said.err.splitlines() == [
        "note: pid 5 is now another process",
        "error: 3 of 6 targets could not be stopped",
        "",
        "  gone: no server `gone`",
        "  web: one survived",
        "  web: no answer yet",
        "",
        "hint: devsup status web",
    ]
    assert said.code == 8


# -- plain text ----------------------------------------------------------------------------------------


def test_a_start_is_one_line(call: Callable[..., Said]) -> None:
    assert call("start", "web") == (
        0,
        "dev_server_web ready http://localhost:3000 pid 4711 (reused)\n",
        "note: a note\n",
    )


def test_a_list_is_aligned_and_has_one_line_a_server(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.servers = [
        make_server(started_at="2026-01-02T03:04:05.678Z"),
        make_server(session="[red]x", state=State.CRASHED, exit_code=1, pid=None, port=None, url=None),
        make_server(session="k\x1b[2J", state=State.CRASHED, exit_code=None, signal=9, port=8081, url=None),
        make_server(scope="foreign"),
    ]
    supervisor.unmanaged = [Unmanaged("next", 99, 3001, "http://localhost:3001", "/home/me/shop", None)]
    heading, cells = plain.rows(supervisor.list(), projects=False, now=1767323045.678 + 125)
    assert heading == ["SESSION", "STATE", "PID", "PORT", "URL", "UPTIME"]
    assert cells[0] == ["dev_server_web", "ready", "4711", "3000", "http://localhost:3000", "2m05s"]
    assert cells[1] == ["[red]x", "crashed (exit 1)", "-", "-", "-", "-"]
    out = call("list").out.splitlines()
    assert len(out) == 6
    assert out[1].startswith("dev_server_web  ready              4711  3000  http://localhost:3000  ")
    assert out[3].startswith("k\\x1b[2J")
    assert "crashed (SIGKILL)" in out[3]
    assert "ready (foreign)" in out[4]
    assert out[5] == "(next)          unmanaged          99    3001  http://localhost:3001  -"


def test_everywhere_shows_the_projects(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.servers = [make_server()]
    assert "PROJECT" not in call("list").out
    heading, line = call("list", "--everywhere").out.splitlines()
    assert (heading.split()[-2:], line.split()[-2:]) == (["PROJECT", "BRANCH"], ["/home/me/shop", "-"])


def test_an_empty_list_is_its_heading(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.servers = []
    assert call("list") == (0, "SESSION  STATE  PID  PORT  URL  UPTIME\n", "")


def test_a_url_is_just_that(call: Callable[..., Said]) -> None:
    assert call("url", "web") == (0, "http://localhost:3000\n", "")


def test_a_status_tells_everything_masked(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.server = make_server(command=["node", "--token", "abc", "a b"])
    out = call("status", "web").out
    assert "command   node --token *** 'a b'\n" in out
    assert "process   4711 node next dev\n" in out


def test_secrets_are_masked_in_json(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.server = make_server(command=["node", "--token", "abc", "--db=pg://u:p@h/d"])
    supervisor.servers = [make_server(), supervisor.server]
    server = json.loads(call("status", "web", "--json").out)["data"]["server"]
    assert server["command"] == ["node", "--token", "***", "--db=pg://***@h/d"]
    assert json.loads(call("list", "--json").out)["data"]["servers"][1] == server


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0ms"),
        (0.85, "850ms"),
        (1, "1s"),
        (59.9, "59s"),
        (185, "3m05s"),
        (7800, "2h10m"),
        (360000, "4d04h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, shown: str) -> None:
    assert plain.duration(seconds) == shown


# -- logs ----------------------------------------------------------------------------------------------


def page(text: str, cursor: str, **changes: Any) -> LogPage:
    """Return a page."""
    return LogPage(text, cursor, truncated=False, reset=False, generation=3, ended=False).replace(**changes)


def test_logs_are_shown_as_they_are(call: Callable[..., Said], supervisor: StandIn) -> None:
    supervisor.pages = [page("[bold]x\n\ttab äöü\n", "3:9", truncated=True, reset=True)]
    assert call("logs", "web") == (
        0,
        "[bold]x\n\ttab äöü\n",
        "note: the server was restarted; this is the new log\nnote: what came before this is not shown\n",
    )


def test_a_follower_gets_every_page_until_the_end(call: Callable[..., Said], supervisor: StandIn) -> None:
    pages = [page("a\n", "3:2"), page("", "3:2"), page("b\n", "3:4"), page("", "3:4", ended=True)]
    supervisor.pages = list(pages)
    assert call("logs", "web", "-f") == (0, "a\nb\n", "")
    supervisor.pages = list(pages)
    said = call("logs", "web", "-f", "--json")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["data"]["text"] for line in lines] == ["a\n", "b\n", ""]
    assert lines[-1]["data"]["ended"] is True
    assert [options["after"] for _, _, options in supervisor.calls[-4:]] == [None, "3:2", "3:2", "3:4"]


def test_a_follower_is_told_of_an_error_on_a_line_of_its_own(
    call: Callable[..., Said], supervisor: StandIn
) -> None:
    supervisor.fails(NotFound("no server `web`"))
    said = call("logs", "web", "-f", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (3, "not_found")


# -- streams -------------------------------------------------------------------------------------------


def test_text_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as stream:
        assert write("ä 日 \udcff\n", stream) == 0
    assert (tmp_path / "out").read_bytes() == b"\xe4 \\u65e5 \\udcff\n"


def test_json_stays_json_in_any_encoding(
    call: Callable[..., Said], supervisor: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor.server = make_server(cwd="/tmp/日本\udcff😀")
    assert json.loads(call("status", "web", "--json").out)["data"]["server"]["cwd"] == "/tmp/日本\udcff😀"
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["status", "web", "--json"]) == 0
    answer = json.loads((tmp_path / "out").read_bytes())
    assert answer["data"]["server"]["cwd"] == "/tmp/日本\udcff😀"


def test_no_stdout_at_all_is_no_crash(
    call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, supervisor: StandIn
) -> None:
    del call
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list", "--json"]) == 0
    assert main(["list"]) == 0
    assert [name for name, _, _ in supervisor.calls] == ["list", "list"]


# -- the screen ----------------------------------------------------------------------------------------


def drawn(listed: ServerList, width: int = 80, *, projects: bool = False) -> str:
    """Return the table as a terminal of this width shows it, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, no_color=True, color_system=None)
    console.print(screen.table(listed, projects=projects, now=1767323045.678 + 125))
    return out.getvalue()


def test_the_table_stays_readable_at_80_columns() -> None:
    servers = [
        make_server(),
        make_server(app="[red]x[/]", state=State.CRASHED, exit_code=1, pid=None, port=None, url=None),
        make_server(app="a_very_long_name_of_an_app_indeed", project="/home/me/wiki/some-long-project"),
    ]
    unmanaged = [Unmanaged("next", 99, 3001, "http://localhost:3001", "/home/me/shop", None)]
    text = drawn(ServerList(servers, unmanaged, []), projects=True)
    lines = text.splitlines()
    assert len(lines) == 6
    assert all(len(line) <= 80 for line in lines)
    assert "[red]x[/]" in text
    assert all("http://localhost:300" in lines[at] for at in (1, 4, 5))
    assert lines[3].strip() == ""  # between two repositories
    assert "…" in lines[4]
    assert "crashed (exit 1)" in text


def test_the_table_shows_everything_where_there_is_room() -> None:
    text = drawn(ServerList([make_server()], [], []), width=120)
    assert text.split() == [
        *("APP", "STATE", "PID", "URL", "UPTIME"),
        *("web", "ready", "4711", "http://localhost:3000", "2m05s"),
    ]


def test_the_screen_says_the_same_as_the_plain_text(
    supervisor: StandIn, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colour is all that a terminal adds to a line; long lines are not broken, so they can be copied."""
    monkeypatch.setenv("COLUMNS", "20")
    for answer in (
        Answer("start", supervisor.start("web"), notes=["[b]note"]),
        Answer("stop", StopResults(supervisor.stops, [])),
        Answer("url", supervisor.url()),
        Answer("status", supervisor.status()),
        Answer("start", error=PortTaken("port 3000 is taken by `[x]`", hint="devsup start web --port auto")),
        Answer("logs", page("x" * 100 + "\n", "3:9")),
    ):
        assert screen.show(answer) == answer.exit_code
        assert capfd.readouterr() == (plain.render(answer), plain.talk(answer))

"""No secret in any output: not of the server, nor of a stranger's command line, nor of what a bug leaves."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from devsup import masking, ports
from devsup.__main__ import main
from devsup.cli import answer as answers
from devsup.cli import handlers, lane, plain, screen
from devsup.cli.report import internal
from devsup.errors import NotFound
from devsup.supervisor.waiting import Progress
from tests.support import free_port, is_listening, server_argv, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Answer, Devsup, StandIn

#: What must not be seen, in each way that a command can say it.
SECRETS = ["tok3nvalue1", "tok3nvalue2", "tok3nvalue3", "ghp_tok3nvalue4", "tok3nvalue5", "sk-tok3nvalue6"]
SECRET_WORDS = [
    *("--token", SECRETS[0], f"--api-key={SECRETS[1]}", f"DB_PASSWORD={SECRETS[2]} x"),
    *(SECRETS[3], f"postgres://me:{SECRETS[4]}@db/app", "--client-secret", SECRETS[5]),
]


def _answers(devsup: Devsup, stand_in: StandIn, flags: list[str]) -> Iterator[Answer]:
    """Give the answers in which a command could turn up."""
    port, other, silent = free_port(), free_port(), free_port()
    env = ["--env", "API_TOKEN=tok3nvalue9"]
    web = [*server_argv("web"), *SECRET_WORDS]

    def run(*words: object) -> Answer:
        return devsup(*flags, *words)

    yield run("start", "web", "--port", port, *env, "--", *web)
    yield run("start", "web", "--port", port, "--", *web)
    yield run("start", "web", "--", *web, "--other")  # another command
    yield run("start", "two", "--port", port, "--", *web)  # our own server has the port
    yield run("list")
    yield run("status", "web")
    yield run("-v", "url", "web")
    yield run("restart", "web")
    stranger = stand_in("web", "--port", other, *SECRET_WORDS)
    wait_until(lambda: is_listening(other))
    yield run("start", "two", "--port", other, "--", *web)  # a stranger has it
    yield run("stop", stranger.pid)
    yield run("stop", f":{other}")
    yield run("stop", stranger.pid, f":{other}")
    yield run("start", "web", *SECRET_WORDS)  # the dashes are missing
    yield run("start", "a b", "--", *web)
    yield run("start", "c", "--", *server_argv("crasher"), *SECRET_WORDS)
    yield run("start", "c", "--", "no-such-program", *SECRET_WORDS)
    yield run("start", "c", "--port", "x", "--", *web)
    yield run("start", "--port", silent, "--timeout", 0.2, "--", *server_argv("silent"), *SECRET_WORDS)
    yield run("logs", "web")
    yield run("stop", "--all")
    yield run("list", "-a")
    yield run("status", "web")


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["plain", "json"])
def test_no_output_shows_a_secret(flags: list[str], devsup: Devsup, stand_in: StandIn, home: Path) -> None:
    shown = 0
    for answer in _answers(devsup, stand_in, flags):
        text = answer.out + answer.err
        assert "tok3nvalue" not in text, answer
        assert "internal" not in text, answer
        shown += "***" in text
    assert shown  # how many depends on what a line's width leaves of a long command
    with sqlite3.connect(home / "registry.db") as registry:
        events = list(registry.execute("SELECT * FROM events"))
    registry.close()
    assert events
    assert "tok3nvalue" not in repr(events)


def test_a_spinner_shows_no_secret() -> None:
    call = lane.parse(["start", "--", "node", "x y", *SECRET_WORDS])
    assert call is not None
    waits = handlers.waiting_for(call)
    assert waits is not None
    assert waits.startswith("starting node 'x y' --token ***")
    assert "tok3nvalue" not in waits
    waiting = screen._Waiting("")
    waiting.tell(Progress(f"waiting for `srv {' '.join(SECRET_WORDS)}`"))
    drawn = io.StringIO()
    Console(file=drawn, width=400).print(waiting._drawn())
    assert "tok3nvalue" not in drawn.getvalue()
    assert "waiting for `srv" in drawn.getvalue()


def test_the_report_of_a_bug_has_no_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even a value of `--env` whose name says nothing."""

    def fail(*_: object, **given: Any) -> None:
        raise ValueError(f"{given['env']} and {given['command']}")

    monkeypatch.setattr("devsup.supervisor.Supervisor.start", fail)
    main(["start", "x", "--env", "LICENSE=abcd-9", "--json", "--", "srv", *SECRET_WORDS])
    out, err = capfd.readouterr()
    monkeypatch.setattr("tempfile.tempdir", str(home))
    monkeypatch.setattr("sys.argv", ["devsup", "start", "--env", "A=tok3nvalue1", "--env=B=tok3nvalue2"])
    unparsed = [internal(RuntimeError("before anything was parsed"))]
    monkeypatch.setattr("sys.argv", ["devsup", "up", "--env", "tok3nvalue1", "--env=tok3nvalue2"])
    monkeypatch.setattr("time.strftime", lambda *_: "later")
    unparsed.append(internal(RuntimeError("before anything was parsed")))
    reports = [*(home / "reports").iterdir(), *(Path(one.details["report"]) for one in unparsed)]
    texts = [path.read_text() for path in reports]
    assert json.loads(out)["error"]["code"] == "internal"
    assert any("LICENSE" in text for text in texts)
    assert any("--env" in text and "A=***" in text for text in texts)
    for text in (out, err, *texts):
        assert not re.search(r"tok3nvalue|abcd-9", text), text


def test_what_is_said_of_an_error_is_masked_before_it_is_made_readable() -> None:
    """A secret with a letter that no terminal shows does not look like itself afterwards."""
    masking.learn({"API_TOKEN": "tok3n\u00a0value"})
    error = NotFound("no tok3n\u00a0value", hint="tok3n\u00a0value", details={"log_tail": "tok3n\u00a0value"})
    said = plain.talk(answers.Answer("status", error=error, notes=["tok3n\u00a0value\x07"]))
    assert "tok3n" not in said
    assert "note: ***\\x07\n" in said


def test_who_has_a_port_is_said_as_far_as_it_is_known() -> None:
    """Of another user's process the system tells us no more."""
    unknown = ports.Holder(80, "::", None, None, None, None)
    assert unknown.name == "another process"
    assert unknown.replace(uid=os.getuid() + 1).name == "a process of another user"
    assert unknown.replace(pid=7).name == "pid 7 (`unknown`)"
    known = unknown.replace(pid=7, command="node x", cwd="/a")
    assert known.name == "pid 7 (`node x` in `/a`)"
    assert len(known.replace(command="x" * 500, cwd=None).name) < 100

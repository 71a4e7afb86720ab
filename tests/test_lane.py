"""Two ways in, one command line: the hot lane and Typer understand the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devsup import trace
from devsup.__main__ import main
from devsup.cli import app, generate, lane
from devsup.cli.grammar import VERBS
from devsup.errors import DevsupError
from tests.cli_support import EVERY_CALL, SERVES, StandIn
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def by_typer(argv: list[str]) -> lane.Call | str:
    """Return what Typer makes of ``argv``; a text for a mistake."""
    try:
        return app.parse(argv, as_json=False)
    except DevsupError as error:
        return str(error)


@pytest.mark.parametrize("argv", EVERY_CALL, ids=" ".join)
def test_both_lanes_read_a_documented_call_alike(argv: list[str]) -> None:
    call = lane.parse(argv)
    assert call is not None, "a documented call belongs to the hot lane"
    assert call == by_typer(argv)


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "plain"])
@pytest.mark.parametrize("argv", [argv for argv in EVERY_CALL if not SERVES & set(argv)], ids=" ".join)
def test_both_lanes_answer_a_documented_call_alike(
    argv: list[str],
    as_json: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
) -> None:
    assert home.is_dir()
    if as_json:
        monkeypatch.setenv("DEVSUP_OUTPUT", "json")
    answers, calls = [], []
    for parse in (lane.parse, lambda _argv: None):
        stand_in = StandIn()
        monkeypatch.setattr("devsup.supervisor.Supervisor", stand_in)
        monkeypatch.setattr(lane, "parse", parse)
        monkeypatch.setattr(trace, "_on", False)
        monkeypatch.chdir(ROOT)
        code = main(argv)
        out, err = capfd.readouterr()
        steps = [line for line in err.splitlines(keepends=True) if line.startswith("devsup +")]
        assert bool(steps) == ("-v" in argv or "--verbose" in argv)
        answers.append(
            (code, out, "".join(line for line in err.splitlines(keepends=True) if line not in steps))
        )
        calls.append(stand_in.calls)
    assert answers[0] == answers[1]
    assert calls[0] == calls[1]
    code, out, err = answers[0]
    assert code == 0
    if as_json:
        assert err == ""
        assert all(json.loads(line).get("ok", "seq" in line) for line in out.splitlines())


FLAGS = sorted({flag for options, *_ in VERBS.values() for flag in options})
WORDS = "web 3000 5 2.5 -1 auto K=V -- - --nope -n5 -fn3 --port=1 -h 1e3 --json=x --help --timeout= -vC/tmp"
NUMBERS = "٣ 1_0 +5 nan inf 5. .5 007"
words = st.sampled_from([*FLAGS, *WORDS.split(), *NUMBERS.split(), "", " 5", "-C=x"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    verb=st.sampled_from([*VERBS, "ls", "ps"]),
    rest=st.lists(words, max_size=6),
    before=st.lists(words, max_size=2),
)
def test_what_the_hot_lane_understands_typer_understands_alike(
    verb: str, rest: list[str], before: list[str]
) -> None:
    """It may leave a call to Typer at any time, but it never reads one in another way."""
    argv = [*before, verb, *rest]
    call = lane.parse(argv)
    if call is not None:
        assert call == by_typer(argv)


@pytest.mark.parametrize(
    "number", [*NUMBERS.split(), " 5", "5 ", "1e3", "-1", "9" * 15, "9" * 16, "9" * 5000, "0x1", ""]
)
def test_numbers_are_read_alike_or_left_to_typer(number: str) -> None:
    """Python's `int` takes more than pydantic does, and the other way round."""
    for argv in (
        ["start", "--timeout", number],
        ["logs", "web", "-n", number],
        ["logs", "web", f"-n{number}"],
    ):
        call = lane.parse(argv)
        assert call is None or call == by_typer(argv)


def test_a_command_is_never_taken_for_the_app() -> None:
    """`start -- CMD` has no app, and nothing behind `--` is an option of ours."""
    for parse in (lane.parse, by_typer):
        call = parse(["start", "--", "vite", "--json", "--port", "1"])
        assert isinstance(call, lane.Call)
        assert (call.options["app"], call.options["command"]) == (None, ["vite", "--json", "--port", "1"])
        assert (call.options["json"], call.options["port"]) == (False, None)


@pytest.mark.parametrize("path", sorted(generate.files()))
def test_a_generated_file_is_current(path: str) -> None:
    """`python -m devsup.cli.generate` writes them."""
    assert (ROOT / path).read_text() == generate.files()[path]


#: Prints what a call has imported beyond what the interpreter starts with.
MODULES = """
import sys
before = set(sys.modules)
from devsup.__main__ import main
code = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
raise SystemExit(code)
"""


def modules_of(*argv: str, env: dict[str, str] | None = None) -> tuple[int, set[str]]:
    """Return exit status and imported modules of a call in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=os.environ["DEVSUP_HOME"] if os.path.isdir(os.environ["DEVSUP_HOME"]) else None,
    )
    return done.returncode, set(done.stderr.split())

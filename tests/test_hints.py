"""A hint is the next command to type: it runs as it stands, from where the caller stands, and it helps."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devsup import errors, identity
from devsup.cli import hints
from devsup.paths import Home, ensure_home
from tests.serving import Servers, pid_at, script
from tests.support import ROOT, Answer, devsup_argv, free_port, server_argv, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Devsup


class There:
    """Calls about a project from a folder outside of it, by `-C`."""

    def __init__(self, devsup: Devsup, outside: Path, folder: Path) -> None:
        self.devsup = devsup
        self.outside = outside
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: object, **options: Any) -> Answer:
        """Run a command there."""
        return self.devsup("--json", "-C", self.folder, *words, cwd=self.outside, **options)

    def plain(self, *words: object) -> Answer:
        """Run a command as it stands."""
        return self.devsup(*words, cwd=self.outside)


@pytest.fixture
def there(devsup: Devsup, temporary: Path) -> There:
    """Give a project with a blank in its name, seen from outside."""
    folder = temporary / "my shop"
    folder.mkdir()
    (folder / "devsup.toml").touch()
    return There(devsup, temporary, folder)


def serving(*words: object) -> list[str]:
    """Return a command whose words need quotes: it serves on $PORT."""
    return [
        "sh",
        "-c",
        f'exec {shlex.join(server_argv("web", *words))} --port "$PORT"',
        "two  blanks",
        "it's",
    ]


def _port_taken(run: There) -> Answer:
    port = free_port()
    run("start", "a", "--port", port, "--", *serving())
    return run("start", "b", "--port", port, "--", *serving())


def _other_command(run: There) -> Answer:
    run("start", "a", "--port", free_port(), "--", *serving())
    return run("start", "a", "--", *server_argv("silent"))


def _not_ready(run: There) -> Answer:
    slow = serving("--delay", "1")
    return run("start", "a", "--port", free_port(), "--timeout", 0.2, "--", *slow)


def _other_owner(run: There) -> Answer:
    run("start", "a", "--owner", "ci", "--port", free_port(), "--", *serving())
    return run("stop", "a")


def _early(run: There) -> Answer:
    return run("start", "a", "--", *server_argv("crasher"))


def _ended(verb: str) -> Callable[[There], Answer]:
    def provoke(run: There) -> Answer:
        run("start", "a", "--port", free_port(), "--", *serving())
        run("stop", "a")
        return run(verb, "a")

    return provoke


def _ambiguous(run: There) -> Answer:
    for name in ("one", "two"):
        (run.outside / name).mkdir()
        (run.outside / name / "devsup.toml").touch()
        other = There(run.devsup, run.outside, run.outside / name)
        other("start", "a", "--port", free_port(), "--", *serving())
    return run("stop", "a", "--everywhere")


def _elsewhere(run: There) -> Answer:
    """Ask by pid for a server of another project: only there its name means anything."""
    slow = serving("--delay", "6")
    pid = run("start", "a", "--no-wait", "--port", free_port(), "--", *slow).data["server"]["pid"]
    return run.devsup("--json", "wait", pid, "--timeout", 0.1, cwd=run.outside)


def _call(*words: object, **options: Any) -> Callable[[There], Answer]:
    return lambda run: run(*words, **options)


def _limit(run: There) -> Answer:
    one = {"DEVSUP_MAX_SERVERS": "1"}
    run("start", "a", "--port", free_port(), "--", *serving(), env=one)
    return run("start", "b", "--port", free_port(), "--", *serving(), env=one)


def _broken_file(run: There) -> Answer:
    file = run.folder / "devsup.toml"
    file.write_text("{[")
    answer = run("start")
    file.write_text("")
    return answer


def _no_packages(run: There) -> Answer:
    manifest = {"name": "shop", "scripts": {"dev": "next dev"}, "dependencies": {"next": "16.0.0"}}
    (run.folder / "package.json").write_text(json.dumps(manifest))
    return run("start", "web")


def _no_home(run: There) -> Answer:
    (run.outside / "file").touch()
    return run("list", env={"DEVSUP_HOME": str(run.outside / "file")})


def _inside(run: There) -> Answer:
    """Have a server's own script ask for that server."""
    again = shlex.join(devsup_argv("--json", "start", "a"))
    waits = f"while ! test -e go; do sleep 0.02; done; {again} > answer 2> trouble; touch done; sleep 60"
    run("start", "a", "--no-wait", "--", "sh", "-c", waits)
    (run.folder / "go").touch()
    wait_until((run.folder / "done").exists, 30)
    return Answer((), 12, (run.folder / "answer").read_text(), (run.folder / "trouble").read_text())


def _held_lock(run: There) -> Answer:
    where = Home(os.environ["DEVSUP_HOME"])
    ensure_home(where)
    path = where.session_lock(identity.here().key, str(run.folder), "dev_server_a")
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return run("start", "a", "--timeout", 0.2, "--port", free_port(), "--", *serving())


def _amid_a_stop(verb: str) -> Callable[[There], Answer]:
    def provoke(run: There) -> Answer:
        port = free_port()
        run("start", "a", "--port", port, "--", *server_argv("stubborn", "--port", port))
        stop = subprocess.Popen(
            devsup_argv("--json", "-C", run.folder, "stop", "a", "--grace", 7), stdout=subprocess.DEVNULL
        )
        run.children.append(stop)
        wait_until(lambda: run("status", "a").data["server"]["state"] == "stopping", 20)
        return run(verb, "a", "--timeout", 0.2)

    return provoke


def _signalled(number: int) -> Callable[[There], Answer]:
    def provoke(run: There) -> Answer:
        argv = (
            "--json",
            "-C",
            run.folder,
            "start",
            "a",
            "--port",
            free_port(),
            "--",
            *serving("--delay", "60"),
        )
        start = subprocess.Popen(devsup_argv(*argv), stdout=subprocess.PIPE, text=True)
        wait_until(lambda: [one for one in run("list").data["servers"] if one["pid"]], 20)
        start.send_signal(number)
        out, _ = start.communicate(timeout=30)
        return Answer((), start.returncode, out, "")

    return provoke


def _in_another_python(change: str) -> Callable[[There], Answer]:
    """Call devsup where something is not as it should be."""

    def provoke(run: There) -> Answer:
        code = f"import sys; from devsup.__main__ import main; {change}; raise SystemExit(main(sys.argv[1:]))"
        argv = [sys.executable, "-c", code, "--json", "-C", str(run.folder), "list"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return Answer((), done.returncode, done.stdout, done.stderr)

    return provoke


BIG = {"DEVSUP_MAX_SERVERS": "9" * 20}
SITUATIONS: dict[str, tuple[Callable[[There], Answer], str, int | None]] = {
    # name: (what brings it about, the error's code, the exit status of the hint; None: it is a sentence)
    "port taken": (_port_taken, "port_taken", 0),
    "another command": (_other_command, "name_taken", 0),
    "not ready": (_not_ready, "not_ready", 0),
    "ended early": (_early, "exited_early", 0),
    "url of an ended one": (_ended("url"), "not_found", 0),
    "wait for an ended one": (_ended("wait"), "not_found", 0),
    "check of an ended one": (_ended("check"), "unhealthy", 0),
    "ambiguous": (_ambiguous, "ambiguous", 0),
    "of another project": (_elsewhere, "not_ready", 0),
    "another owner's": (_other_owner, "other_owner", 0),
    "adopt the first process": (_call("adopt", 1), "not_ours", 0),
    "adopt nobody": (_call("adopt", 2**31 - 2), "not_found", 0),
    "adopt no pid": (_call("adopt", "web"), "usage", 0),
    "unknown app": (_call("start", "a"), "not_found", None),
    "unknown server": (_call("status", "a"), "not_found", 0),
    "unknown target": (_call("stop", "a"), "not_found", 0),
    "two unknown targets": (_call("stop", "a", "b c"), "not_found", 0),
    "a stranger's pid": (_call("stop", os.getpid()), "not_ours", 0),
    "no pid": (_call("stop", "9" * 20), "usage", 0),
    "no port": (_call("stop", ":99999999"), "usage", 0),
    "no name": (_call("start", "My App", "--", *server_argv("crasher")), "usage", 5),
    "a number as a name": (_call("start", "4711", "--", *server_argv("crasher")), "usage", 5),
    "bad port": (_call("start", "a", "--port", "0", "--", *serving()), "usage", 0),
    "bad time": (_call("start", "a", "--timeout", "nan"), "usage", 0),
    "bad lines": (_call("logs", "a", "-n", "-1"), "usage", 0),
    "bad bytes": (_call("logs", "a", "--max-bytes", 10**12), "usage", 0),
    "another tool's word": (_call("kill", "a"), "usage", 3),
    "another tool's option": (_call("logs", "a", "--tail=5"), "usage", 3),
    "no K=V": (_call("start", "a", "--env", "x"), "usage", 0),
    "no dashes": (_call("start", "a", "--port", free_port(), "sh", "x y"), "usage", 5),
    "nothing after dashes": (_call("start", "a", "--"), "usage", 0),
    "nothing to stop": (_call("stop"), "usage", 0),
    "all and some": (_call("stop", "a", "b c", "--all"), "usage", 3),
    "too many servers": (_call("start", "a", "--", "true", env=BIG), "usage", None),
    "limit": (_limit, "limit_reached", 0),
    "broken devsup.toml": (_broken_file, "config_invalid", None),
    "no packages": (_no_packages, "missing_dependencies", None),
    "no state folder": (_no_home, "registry_unusable", None),
    "inside itself": (_inside, "inside_itself", None),
    "held lock": (_held_lock, "lock_timeout", 0),
    "start amid a stop": (_amid_a_stop("start"), "lock_timeout", 0),
    "restart amid a stop": (_amid_a_stop("restart"), "busy", 0),
    "Ctrl-C": (_signalled(signal.SIGINT), "interrupted", 0),
    "SIGTERM": (_signalled(signal.SIGTERM), "terminated", 0),
    "a bug": (
        _in_another_python(
            "import devsup.supervisor.core as core; core.Supervisor.list = lambda *a, **b: 1/0"
        ),
        "internal",
        0,
    ),
    "Windows": (_in_another_python("sys.platform = 'win32'"), "unsupported_platform", None),
    "a file that is there": (_call("init"), "usage", 0),
    "up of an unknown app": (_call("up", "a"), "not_found", None),
    "no program": (_call("start", "a", "--", "no such program"), "missing_executable", None),
}


#: What has become true once the hint has been followed.
HELPED: dict[str, Callable[[There], bool]] = {
    "port taken": lambda run: len(run("list").data["servers"]) == 2,
    "another command": lambda run: run("list").data["servers"] == [],
    "not ready": lambda run: run("status", "a").data["server"]["state"] == "ready",
    "url of an ended one": lambda run: run("url", "a").code == 0,
    "wait for an ended one": lambda run: run("wait", "a").code == 0,
    "check of an ended one": lambda run: run("check", "a").code == 0,
    "another owner's": lambda run: run("list").data["servers"] == [],
    "start amid a stop": lambda run: run("list").data["servers"] == [],
    "restart amid a stop": lambda run: run("list").data["servers"] == [],
    "Ctrl-C": lambda run: run("list").data["servers"] == [],
    "SIGTERM": lambda run: run("list").data["servers"] == [],
}

#: Codes that no call brings about at will: a process that outlives SIGKILL, a stranger that takes the port of
#: a server in the instant of its end. `stopped_meanwhile` and `unmanaged_running` have tests of their own.
#: So have those of a fleet.
NOT_HERE = {
    *("fleet_unreachable", "lease_held_elsewhere", "port_held", "stopped_meanwhile", "survivors"),
    "unmanaged_running",
}


def test_every_code_has_a_situation() -> None:
    codes = {getattr(errors, name).code for name in errors.__all__}
    assert codes == {code for _, code, _ in SITUATIONS.values()} | NOT_HERE


def test_no_error_is_without_a_hint() -> None:
    """Found in the sources: an error is rarely raised where a test looks."""
    names = set(errors.__all__)
    for path in sorted((ROOT / "devsup").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in names:
                continue
            # Whoever asks knows which command it would be.
            if path.name != "owner.py" and not any(isinstance(one, ast.Starred) for one in node.args):
                assert "hint" in [word.arg for word in node.keywords], f"{path}:{node.lineno}"


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_hint_runs_as_it_stands(name: str, there: There) -> None:
    provoke, code, exit_code = SITUATIONS[name]
    answer = provoke(there)
    assert answer.error["code"] == code, answer
    hint = answer.error["hint"]
    assert hint, answer
    if exit_code is None:
        assert not hint.startswith("devsup ")
    else:
        words = shlex.split(hint)
        assert words[0] == "devsup"
        if name != "of another project":
            assert words[1:3] == ["-C", str(there.folder)], hint
        helped = there.plain(*words[1:])
        assert helped.code == exit_code, (hint, helped)
        assert name not in HELPED or HELPED[name](there)
        assert "usage" not in helped.err
    if code == "ambiguous":
        candidates = answer.error["details"]["candidates"]
        assert len(candidates) == 2
        assert str(candidates[0]["pid"]) == shlex.split(hint)[-1]
        assert answer.json["data"]["results"][0]["details"]["candidates"] == candidates
    for child in there.children:
        assert child.wait(30) == 0
    for each in there("list", "--everywhere").data["servers"]:
        assert there("stop", each["pid"], "--take-over").code == 0


def test_a_start_that_was_stopped_is_made_again_by_its_hint(there: There, devsup_popen: Any) -> None:
    command = serving("--delay", "60")
    argv = ("--json", "-C", there.folder, "start", "a", "--port", free_port(), "--", *command)
    start = devsup_popen(*argv, cwd=there.outside)
    wait_until(lambda: [one for one in there("list").data["servers"] if one["pid"]], 20)
    assert there("stop", "a").code == 0
    out, err = start.communicate(timeout=30)
    error = Servers.answer(start, out, err).error
    assert error["code"] == "stopped_meanwhile"
    assert shlex.split(error["hint"]) == ["devsup", "-C", str(there.folder), "start", "a", "--", *command]


@pytest.mark.parametrize("flag", [["--token", "hunter2secret"], ["--env", "LICENSE=hunter2secret"]])
def test_a_hint_with_a_secret_in_it_is_a_sentence(there: There, flag: list[str]) -> None:
    port = free_port()
    there("start", "a", "--port", port, "--", *serving())
    before, behind = ((), flag) if flag[0] == "--token" else (flag, [])
    answer = there("start", "b", "--port", port, *before, "--", *server_argv("web"), *behind)
    assert answer.error["hint"] == "make the same call again with `--port auto`"
    assert there("stop", "a").code == 0


def test_an_unhealthy_server_is_shown_as_what_it_is(devsup: Devsup, home: Path, project: Path) -> None:
    """Whoever starts it, or asks for its address, is not sent to a port on which nobody listens."""
    servers = Servers(devsup, home, project)
    going = script(
        project,
        "going",
        "import subprocess, time\nfrom stand_in import obey\nobey()\n"
        f"subprocess.run({server_argv('web')!r} + sys.argv[1:])\n"
        "while True: time.sleep(1)\n",
    )
    command = ("web", *going)
    server = servers.start(*command, port=free_port())
    os.kill(pid_at(server["url"]), 9)
    wait_until(lambda: servers.find("web")["state"] == "unhealthy")
    again = servers.try_start(*command)
    assert again.code == 0
    found = again.data["server"]
    assert (found["state"], found["url"], again.data["reused"]) == ("unhealthy", None, True)
    assert any("listens any more" in note and "`devsup restart web`" in note for note in again.notes)
    url = devsup("url", "web", "--json")
    assert (url.code, url.error["code"], url.error["hint"]) == (6, "not_ready", "devsup restart web")
    assert "listens any more" in url.error["message"]
    assert devsup(*shlex.split(url.error["hint"])[1:]).code == 0
    assert devsup("url", "web").code == 0
    servers.stop("web")


def test_a_crash_has_the_same_cause_for_everybody(servers_of_one: Servers) -> None:
    """`start` said why, `restart` and `wait` did not."""
    servers = servers_of_one
    flag = servers.project / "broken"
    code = (
        "import os, time\n"
        f"if os.path.exists({str(flag)!r}):\n"
        "    time.sleep(1)\n"
        "    print('Error: listen EADDRINUSE: address already in use', flush=True)\n"
        "    raise SystemExit(1)\n"
        "import web\n"
    )
    servers.start("web", *script(servers.project, "fragile", code), port=free_port())
    flag.touch()
    restart = servers.devsup("restart", "web", "--json")
    assert (restart.code, restart.error["code"]) == (5, "exited_early")
    assert restart.error["details"]["cause"] == "the port is already in use"
    slow = servers.try_start(
        "web", *script(servers.project, "fragile", code), port=free_port(), flags=["--no-wait"]
    )
    assert slow.code == 0
    wait = servers.devsup("wait", "web", "--json")
    assert (wait.code, wait.error["details"]["cause"]) == (5, "the port is already in use")


@pytest.fixture
def servers_of_one(devsup: Devsup, home: Path, project: Path) -> Servers:
    """Run servers in the test's project."""
    return Servers(devsup, home, project)


@pytest.mark.parametrize(
    ("hint", "folder", "shown"),
    [
        ("devsup list", None, "devsup list"),
        ("devsup list", "a b", "devsup -C 'a b' list"),
        ("run `devsup list`, or wait", "x", "run `devsup -C x list`, or wait"),
        ("devsup -C y stop web", "x", "devsup -C y stop web"),
        ("set DEVSUP_HOME", "x", "set DEVSUP_HOME"),
        (None, "x", None),
    ],
)
def test_a_hint_is_meant_for_the_folder_of_the_call(
    hint: str | None, folder: str | None, shown: str | None
) -> None:
    assert hints.located(hint, folder) == shown


def test_the_folder_of_a_call_that_is_not_understood_is_found() -> None:
    for argv in (["-C", "x", "nope"], ["nope", "--directory=x"], ["nope", "-Cx", "--", "-C", "y"]):
        assert hints.folder_of(argv) == "x"
    assert hints.folder_of(["start", "--", "make", "-C", "y"]) is None

"""
A server that devsup did not start is seen, taken under the registry, and ended alone.

What a stop may signal is the point of it: the process that was adopted, what descends from it, and its group
or session where it leads one. Never the shell that it was typed in, nor that shell's other jobs.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, system
from devsup.apps import processes
from devsup.paths import Home
from devsup.registry import Registry
from tests.serving import LINUX_ONLY, next_app, pid_at, script
from tests.support import free_port, is_listening, server_argv, wait_until, with_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Answer, Devsup, StandIn

pytestmark = LINUX_ONLY


def alive(pid: int) -> bool:
    """Tell whether ``pid`` runs: a zombie of a shell that does not look does not."""
    info = system.process(pid)
    return info is not None and not info.dead


class Shell:
    """A shell as a person has it: on a terminal of its own, with jobs."""

    def __init__(self, folder: Path, *, jobs: bool) -> None:
        self.outer, inner = pty.openpty()
        self.child = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "bash", "--norc", "--noprofile", "-i"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=folder,
            env=with_changes({"PS1": "", "DEVSUP_HOME": None}),
        )
        os.close(inner)
        self._heard = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not jobs:
            self.do("set +m")

    def _read(self) -> None:
        try:
            while more := os.read(self.outer, 4096):
                self._heard += more
        except OSError:
            pass  # the terminal is closed

    def do(self, line: str) -> None:
        """Type a line."""
        os.write(self.outer, f"{line}\n".encode())

    def job(self, argv: list[str], name: str) -> int:
        """Start a job in the background and return its pid."""
        self.do(f"{' '.join(argv)} >/dev/null 2>&1 & echo {name}-is-$!")
        told = wait_until(lambda: re.findall(rf"{name}-is-(\d+)\r".encode(), self._heard))
        return int(told[0])

    def close(self) -> None:
        """Close the terminal, as the window's button does: the kernel ends what is left in it."""
        self.child.kill()
        self.child.wait()
        os.close(self.outer)
        self._reader.join(10)


@contextmanager
def shell(folder: Path, *, jobs: bool) -> Iterator[Shell]:
    """Give a shell; with ``jobs`` each of its jobs has a group of its own, else all are in the shell's."""
    one = Shell(folder, jobs=jobs)
    pids: list[int] = []
    with ExitStack() as stack:
        stack.callback(one.close)
        job = one.job

        def remembered(argv: list[str], name: str) -> int:
            pids.append(job(argv, name))
            return pids[-1]

        one.job = remembered  # type: ignore[method-assign]  # so that nothing outlives the test
        try:
            yield one
        finally:
            for pid in pids:
                if alive(pid):
                    os.kill(pid, 9)


def unmanaged(devsup: Devsup) -> list[dict[str, Any]]:
    """Return what `list` shows of others' servers."""
    found = devsup("--json", "list").data["unmanaged"]
    assert isinstance(found, list)
    return found


# -- seen --------------------------------------------------------------------------------------------------


def test_list_shows_who_listens_in_a_folder_of_the_project(
    devsup: Devsup, project: Path, temporary: Path, stand_in: StandIn
) -> None:
    """Nobody of elsewhere, and nobody who is ours: not even by a second port."""
    (project / "api").mkdir()
    port, elsewhere, own, second = (free_port() for _ in range(4))
    stranger = stand_in("web", "--port", port, cwd=project / "api")
    stand_in("web", "--port", elsewhere, cwd=temporary)
    one, two = (shlex.join(server_argv("web", "--port", number)) for number in (own, second))
    both = f"{one} & exec {two}"
    devsup("start", "own", "--port", own, "--", "sh", "-c", both)
    wait_until(lambda: is_listening(port) and is_listening(elsewhere) and is_listening(second))
    assert unmanaged(devsup) == [
        {
            "kind": "command",
            "pid": stranger.pid,
            "port": port,
            "url": f"http://localhost:{port}",
            "cwd": str(project / "api"),
            "log": None,
        }
    ]
    assert f"(command)  unmanaged  {stranger.pid}" in re.sub(" +", "  ", devsup("list").out)
    devsup("stop", "own")


def test_a_server_of_next_is_shown_once(devsup: Devsup, stand_in: StandIn) -> None:
    """By its lock and by its socket."""
    port = free_port()
    stand_in("next_like", "dev", "-p", port)
    wait_until(lambda: is_listening(port))
    [one] = wait_until(lambda: [one for one in unmanaged(devsup) if one["pid"]])
    assert (one["kind"], one["port"], one["pid"]) == ("next", port, pid_at(port))


# -- refused -----------------------------------------------------------------------------------------------


def refused(devsup: Devsup, target: object) -> Answer:
    answer = devsup("--json", "adopt", target)
    assert answer.code == 12, answer
    assert answer.error["code"] == "not_ours"
    assert answer.error["hint"]
    return answer


def test_who_may_not_be_adopted_is_refused(
    devsup: Devsup, project: Path, temporary: Path, stand_in: StandIn
) -> None:
    """Nothing of it is recorded, and nobody is signalled."""
    port = free_port()
    elsewhere = stand_in("web", "--port", port, cwd=temporary)
    wait_until(lambda: is_listening(port))
    assert "outside of" in refused(devsup, elsewhere.pid).error["message"]
    assert "outside of" in refused(devsup, f":{port}").error["message"]
    assert "first process" in refused(devsup, 1).error["message"]
    shared = subprocess.Popen(["bash", "-c", "exec -a tmux sleep 1000"], cwd=project)
    wait_until(lambda: system.cmdline(shared.pid)[:1] == ["tmux"])
    assert "other projects share" in refused(devsup, shared.pid).error["message"]
    shared.kill()
    shared.wait()
    if os.getuid() == 0:
        temporary.chmod(0o711)
        other = subprocess.Popen(["sleep", "1000"], cwd=project, user=65534)
        assert "another user's" in refused(devsup, other.pid).error["message"]
        other.kill()
        other.wait()
    assert devsup("--json", "adopt", "2147483646").error["code"] == "not_found"
    assert devsup("--json", "adopt", f":{free_port()}").error["code"] == "not_found"
    assert devsup("--json", "adopt", "web").error["code"] == "usage"
    assert devsup("--json", "adopt", ":0").error["code"] == "usage"
    assert devsup("--json", "list").data["servers"] == []
    assert alive(elsewhere.pid)


def test_the_caller_s_own_shell_is_refused(devsup: Devsup, project: Path) -> None:
    """A stop of it would be the last thing that its user sees of that terminal."""
    call = f"{sys.executable} -m devsup --json adopt $$; true"
    done = subprocess.run(["sh", "-c", call], capture_output=True, text=True, cwd=project, check=False)
    assert json.loads(done.stdout)["error"]["code"] == "not_ours"
    with shell(project, jobs=True) as terminal:
        child = terminal.job(["sleep", "1000"], "sleep")
        parent = system.process(child)
        assert parent is not None
        assert "shell of a terminal" in refused(devsup, parent.ppid).error["message"]


# -- adopted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [True, False], ids=["jobs", "no-jobs"])
def test_a_stop_ends_the_server_and_nothing_else_of_its_shell(
    devsup: Devsup, project: Path, jobs: bool
) -> None:
    """Typed with `&` at a terminal: there its group is its own. Without job control it is the shell's."""
    port, other = free_port(), free_port()
    with shell(project, jobs=jobs) as terminal:
        server = terminal.job(["env", f"PORT={port}", *server_argv("npm_like", "web")], "server")
        sibling = terminal.job(server_argv("web", "--port", other), "sibling")
        idle = terminal.job(["sleep", "1000"], "idle")
        wait_until(lambda: is_listening(port) and is_listening(other))
        found = devsup("--json", "adopt", server).data
        assert (found["reused"], found["server"]["pid"], found["server"]["port"]) == (False, server, port)
        assert (found["server"]["guard_pid"], found["server"]["state"]) == (None, "ready")
        tree = {one["pid"] for one in devsup("--json", "status", server).data["processes"]}
        assert server in tree
        assert pid_at(port) in tree
        assert not tree & {sibling, idle, terminal.child.pid}
        (result,) = devsup("--json", "stop", f":{port}").data["results"]
        assert (result["outcome"], result["port_free"], result["survivors"]) == ("stopped", True, [])
        assert result["left_running"] == []
        assert [alive(pid) for pid in (server, *tree)] == [False] * (len(tree) + 1)
        assert alive(sibling)
        assert alive(idle)
        assert is_listening(other)
        terminal.do("echo still-$((40 + 2))")
        wait_until(lambda: b"still-42" in terminal._heard)


def test_what_it_is_a_part_of_is_said_without_a_secret(devsup: Devsup, project: Path) -> None:
    """A long command is cut, and half a secret does not look like one."""
    port = free_port()
    server = server_argv("web", "--port", port)
    (project / "npm").write_text(f"import subprocess\nsubprocess.run({server!r})\n")
    with shell(project, jobs=True) as terminal:
        secret = f"postgres://me:{'hunter2-' * 20}@db/app"
        top = terminal.job([sys.executable, "npm", secret], "server")
        wait_until(lambda: is_listening(port))
        adopted = devsup("--json", "adopt", f":{port}")
        assert adopted.data["server"]["pid"] == top
        assert any("npm postgres://***@db/app` (pid" in note for note in adopted.notes)
        assert "hunter" not in adopted.out + adopted.err
        assert devsup("--json", "stop", top).code == 0


def test_a_second_port_of_an_adopted_server_is_no_stranger_s(devsup: Devsup, project: Path) -> None:
    """It has neither a marker nor a session of its own: only its parent says whose it is."""
    one, two = free_port(), free_port()
    lines = [shlex.join(server_argv("web", "--port", port)) for port in (one, two)]
    with shell(project, jobs=False) as terminal:
        server = terminal.job(["sh", "-c", shlex.quote(f"{lines[0]} & {lines[1]} & wait")], "server")
        wait_until(lambda: is_listening(one) and is_listening(two))
        assert len(unmanaged(devsup)) == 2
        devsup("--json", "adopt", server).data  # noqa: B018 - that it went well
        assert unmanaged(devsup) == []
        for port in (one, two):
            for target in (f":{port}", str(pid_at(port))):
                assert devsup("--json", "status", target).data["server"]["pid"] == server
        devsup("stop", f":{two}")
        assert not is_listening(one)
        assert not is_listening(two)


MIDDLE = """
import signal, subprocess, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
child = subprocess.Popen(sys.argv[1:])
while not told:
    time.sleep(0.01)
child.wait()
time.sleep(1)
"""


def test_an_orphan_without_a_marker_is_waited_for_too(devsup: Devsup, project: Path) -> None:
    """Its wrapper ends at the TERM and it takes its time: nothing says any more whose it was."""
    port = free_port()
    middle = shlex.join([*script(project, "middle", MIDDLE), *server_argv("web", "--port", port)])
    with shell(project, jobs=False) as terminal:
        server = terminal.job(["sh", "-c", shlex.quote(f"{middle} & wait")], "server")
        wait_until(lambda: is_listening(port))
        devsup("--json", "adopt", server).data  # noqa: B018 - that it went well
        tree = [one["pid"] for one in devsup("--json", "status", str(server)).data["processes"]]
        assert len(tree) == 3
        (result,) = devsup("--json", "stop", str(server)).data["results"]
        assert (result["outcome"], result["escalated"], result["port_free"]) == ("stopped", False, True)
        assert result["left_running"] == []
        assert not any(alive(pid) for pid in tree)


def test_what_the_server_leaves_when_its_leader_is_killed_is_still_known(
    devsup: Devsup, project: Path
) -> None:
    """Without marker and guard: by the socket, and by the group that the leader had."""
    port = free_port()
    with shell(project, jobs=True) as terminal:
        server = terminal.job(["env", f"PORT={port}", *server_argv("npm_like", "web")], "server")
        other = terminal.job(["sleep", "1000"], "other")
        wait_until(lambda: is_listening(port))
        devsup("--json", "adopt", server).data  # noqa: B018 - that it went well
        os.kill(server, 9)
        wait_until(lambda: not alive(server))
        [one] = devsup("--json", "list").data["servers"]
        assert (one["state"], one["port"]) == ("ready", port)
        (result,) = devsup("--json", "stop", f":{port}").data["results"]
        assert (result["outcome"], result["port_free"]) == ("stopped", True)
        assert alive(other)


def test_the_adopted_app_is_found_guarded_restarted_and_stopped(
    devsup: Devsup, project: Path, home: Path, stand_in: StandIn
) -> None:
    """As the app of its folder: `start` gives it a guard, `restart` runs the app's own script."""
    port = free_port()
    next_app(project, *server_argv("next_like"))
    by_hand = stand_in("next_like", "dev", "-p", port)
    wait_until(lambda: is_listening(port) and [one for one in unmanaged(devsup) if one["pid"]])
    running = devsup("--json", "start", "web", "--port", port)
    assert running.error["code"] in ("port_taken", "unmanaged_running")
    adopted = devsup("--json", "adopt", by_hand.pid)
    server = adopted.data["server"]
    assert (server["app"], server["session"], server["kind"]) == ("web", "dev_server_web", "next")
    assert (server["state"], server["guard_pid"], server["owner"]) == ("ready", None, "script")
    assert any("devsup start web" in note for note in adopted.notes)
    assert unmanaged(devsup) == []
    again = devsup("--json", "adopt", f":{port}")
    assert (again.data["reused"], again.data["server"]["id"]) == (True, server["id"])
    assert any("already" in note for note in again.notes)
    assert devsup("--json", "url", "web").data["port"] == port
    assert "where it was started" in devsup("--json", "logs", "web").error["message"]
    events = [one.type for one in Registry(Home(str(home))).events()]
    assert events == ["adopted"]

    guarded = devsup("--json", "start", "web", "--port", port)
    assert (guarded.data["reused"], guarded.data["server"]["pid"]) == (True, by_hand.pid)
    guard = guarded.data["server"]["guard_pid"]
    assert guard is not None
    assert guarded.notes == ["it has a guard now"]
    again = devsup("--json", "restart", "web").data["server"]
    assert (again["guard_pid"], again["port"]) == (guard, port)
    assert again["pid"] != by_hand.pid
    by_hand.wait(20)
    assert devsup("--json", "logs", "web").data["text"]
    devsup("stop", "web")
    assert not is_listening(port)


@pytest.mark.parametrize(("kind", "packages"), [("vite", ["vite"]), ("sveltekit", ["vite", "@sveltejs/kit"])])
def test_what_only_its_package_tells_apart_is_adopted_as_its_app(
    devsup: Devsup, project: Path, kind: str, packages: list[str]
) -> None:
    """One process of Vite looks like another, so a list calls it that; the app of its folder knows better."""
    port = free_port()
    package = {"scripts": {"dev": "vite dev"}, "devDependencies": dict.fromkeys(packages, "*")}
    (project / "package.json").write_text(json.dumps(package))
    program = project / "node_modules" / ".bin" / "vite"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(server_argv("web")[1]))
    argv = [sys.executable, str(program), "dev", "--port", str(port)]
    with subprocess.Popen(argv, cwd=project, env=with_changes({"DEVSUP_HOME": None})) as by_hand:
        try:
            wait_until(lambda: is_listening(port))
            assert [one["kind"] for one in unmanaged(devsup)] == ["vite"]
            server = devsup("--json", "adopt", by_hand.pid).data["server"]
            assert (server["app"], server["kind"]) == ("web", kind)
            devsup("stop", "web")
        finally:
            by_hand.kill()


def test_the_log_that_next_keeps_itself_is_shown_and_never_cut(
    devsup: Devsup, project: Path, stand_in: StandIn
) -> None:
    """Neither by a look without a guard, nor by the guard: it is another program's file."""
    port, limit = free_port(), {"DEVSUP_LOG_LIMIT": "70k"}
    next_app(project, *server_argv("next_like"))
    log = project / ".next" / "dev" / "logs" / "next-development.log"
    log.parent.mkdir(parents=True)
    log.write_text("a line of Next.js\n" * 20_000)
    size = log.stat().st_size
    by_hand = stand_in("next_like", "dev", "-p", port)
    wait_until(lambda: is_listening(port) and [one for one in unmanaged(devsup) if one["pid"]])
    server = devsup("--json", "adopt", by_hand.pid, env=limit).data["server"]
    assert server["log"] == str(log)
    assert "a line of Next.js" in devsup("logs", "web", "-n", 1, env=limit).out
    assert devsup("--json", "start", "web", "--port", port, env=limit).data["server"]["guard_pid"]
    assert devsup("stop", "web", env=limit).code == 0
    assert log.stat().st_size == size
    assert [one.name for one in log.parent.iterdir()] == [log.name]


def test_an_adopted_server_that_ends_is_shown_as_ended(devsup: Devsup, stand_in: StandIn) -> None:
    """With a guard at once, without one at the next look; and its session is free again."""
    port = free_port()
    for guarded in (False, True):
        by_hand = stand_in("web", "--port", port)
        wait_until(lambda: is_listening(port))
        server = devsup("--json", "adopt", by_hand.pid, "--name", "api").data["server"]
        if guarded:
            devsup("start", "api")
            devsup("wait", "api")
        by_hand.kill()
        by_hand.wait()
        [one] = wait_until(
            lambda: [one for one in devsup("--json", "list").data["servers"] if one["state"] == "crashed"]
        )
        assert one["id"] == server["id"]
        (result,) = devsup("--json", "stop", "api").data["results"]
        assert result["outcome"] == "already_stopped"
        assert devsup("--json", "list").data["servers"] == []
        for target, said in ((f":{port}", f"nobody listens on port {port}"), (by_hand.pid, "has ended")):
            again = devsup("--json", "adopt", target)
            assert (again.code, again.error["code"]) == (3, "not_found")
            assert said in again.error["message"]


def test_a_pid_that_was_one_of_ours_may_be_a_stranger_s_now(
    devsup: Devsup, stand_in: StandIn, home: Path
) -> None:
    port, other = free_port(), free_port()
    server = devsup("--json", "start", "api", "--port", port, "--", *server_argv("web")).data["server"]
    devsup("stop", "api")
    by_hand = stand_in("web", "--port", other)
    wait_until(lambda: is_listening(other))
    stopped = devsup("--json", "stop", f":{other}")
    assert (stopped.code, stopped.error["hint"]) == (12, f"devsup adopt :{other}")
    with closing(sqlite3.connect(home / "registry.db")) as db, db:
        # What a kernel does that has given out all its numbers.
        changed = db.execute("UPDATE history SET pid = ? WHERE pid = ?", (by_hand.pid, server["pid"]))
        assert changed.rowcount == 1
    adopted = devsup("--json", "adopt", by_hand.pid)
    assert adopted.code == 0, adopted
    assert adopted.data["server"]["pid"] == by_hand.pid
    assert devsup("stop", "--all").code == 0
    by_hand.wait(20)


def test_two_adopt_at_once_and_one_is_told_of_the_other(
    devsup: Devsup, project: Path, home: Path, stand_in: StandIn
) -> None:
    port = free_port()
    by_hand = stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port))
    answers: list[Any] = []

    def call() -> None:
        answers.append(Supervisor(str(project), str(home)).adopt(f":{port}"))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert len({one.server.id for one in answers}) == 1
    assert sorted(one.reused for one in answers) == [False] + [True] * 5
    devsup("stop", f":{port}")
    assert by_hand.wait(20) is not None


# -- the top of a tree -------------------------------------------------------------------------------------


def test_an_agent_that_started_it_is_not_part_of_it(devsup: Devsup, project: Path) -> None:
    """The parent is in the same session, group and folder, and no shell: still nobody may end it."""
    port = free_port()
    code = (
        "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]);"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    agent = subprocess.Popen(
        [sys.executable, "-c", code, *server_argv("web", "--port", port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=project,
        start_new_session=True,
    )
    assert agent.stdout is not None
    server = int(agent.stdout.readline())
    wait_until(lambda: is_listening(port))
    assert devsup("--json", "adopt", f":{port}").data["server"]["pid"] == server
    assert devsup("--json", "stop", f":{port}").data["results"][0]["outcome"] == "stopped"
    assert alive(agent.pid)
    agent.communicate("")


@pytest.mark.parametrize(
    ("chain", "top"),
    [
        # (command lines from the top down, which of them is the server)
        ([["bash"], ["node", "/x/node_modules/.bin/next", "dev"], ["next-server (v16.4.5)"]], 1),
        (
            [
                ["-bash"],
                ["npm run dev"],
                ["sh", "-c", "next dev"],
                ["node", "/x/next", "dev"],
                ["next-server"],
            ],
            1,
        ),
        ([["bash"], ["bash", "-c", "next dev"], ["node", "/x/next", "dev"], ["next-server"]], 2),
        ([["node", "/usr/bin/agent"], ["node", "/x/next", "dev"], ["next-server"]], 1),
        (
            [
                ["node", "turbo.js"],
                ["node", "/x/pnpm.cjs", "run", "dev"],
                ["sh", "-c", "x"],
                ["node", "x.js"],
            ],
            1,
        ),
        ([["node", "concurrently.js"], ["sh", "-c", "x"], ["node", "x.js"]], 2),
        ([["bun", "run", "dev"], ["node", "/x/expo", "start"]], 0),
        ([["bash", "dev.sh"], ["python3", "-m", "http.server"]], 1),
    ],
)
def test_the_top_is_a_manager_or_a_server_never_a_shell(
    monkeypatch: pytest.MonkeyPatch, chain: list[list[str]], top: int
) -> None:
    infos = {
        100 + n: system.ProcessInfo(100 + n, 99 + n if n else 1, 100, 100, 1000 + n, "S", 5, "x")
        for n in range(len(chain))
    }
    monkeypatch.setattr(system, "process", infos.get)
    monkeypatch.setattr(system, "cmdline", lambda pid: chain[pid - 100])
    monkeypatch.setattr(system, "cwd", lambda _pid: "/x/app")
    monkeypatch.setattr(system, "uid", lambda _pid: 7)
    found = processes.top_of(infos[100 + len(chain) - 1], "/x")
    assert found.pid == 100 + top
    # In another session, or outside of the project, is no parent.
    monkeypatch.setattr(system, "cwd", lambda _pid: "/y")
    assert processes.top_of(infos[100 + len(chain) - 1], "/x").pid == 100 + len(chain) - 1

"""What a rebuild finds: real processes with markers, real job files, and the whole of devsup around them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity, tree
from devsup.models import State
from devsup.paths import Home
from devsup.registry import Registry, recovery
from devsup.tree import MARKER, Marker
from tests.registry_child import make_row, reserve
from tests.support import free_port, hear, server_argv, wait_until
from tests.test_stand_ins import gone

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Devsup, Leftovers, Spawn

    Live = Callable[..., subprocess.Popen[str]]

#: A process that tells when it is there, and where it listens if it was asked to.
CODE = """
import os, socket, sys
os.setsid()  # as servers do: what has a terminal is a person's
listener = None
if "listen" in sys.argv:
    listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1] if listener else "here", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def live(home: Path, spawn: Spawn) -> Live:
    """Start a process that carries the marker of a server of this home."""

    def start(
        server: str, *words: str, session: str = "x", generation: int = 1, code: str = CODE, at: Path = home
    ) -> subprocess.Popen[str]:
        marker = Marker(str(at), "/p", session, server, generation)
        return spawn(code, *words, env={MARKER: str(marker)})

    return start


@pytest.fixture
def registry(home: Path) -> Registry:
    """Return a registry that is rebuilt from what really lives."""
    return Registry(Home(str(home)))


def job(home: Path, server: str, **fields: Any) -> None:
    """Write a job file as a start does."""
    (home / "servers").mkdir(exist_ok=True)
    written = {
        "id": server,
        "generation": 1,
        "home": str(home),
        "scope": identity.here().key,
        "netns": "net",
        "project": "/p",
        "session": "x",
        "app": "web",
        "kind": "next",
        "cwd": "/p/web",
        "command": ["next", "dev"],
        "port": 3000,
        "folder": "/p/web",
        "log": "/logs/1.log",
        "owner": "agent",
        "started_at": 1_234,
    } | fields
    (home / "servers" / f"{server}.json").write_text(json.dumps(written))


def living(home: Path) -> list[Any]:
    return recovery.living(Home(str(home)))


# -- rows -------------------------------------------------------------------------------------------


def test_a_server_is_found_by_its_marker_and_its_job(home: Path, live: Live) -> None:
    child = live("a1", "listen")
    port = int(hear(child))
    job(home, "a1", port=port)
    [row] = living(home)
    leader = identity.of(child.pid)
    assert row == make_row(
        "a1",
        "x",
        generation=1,
        app="web",
        cwd="/p/web",
        folder="/p/web",
        log="/logs/1.log",
        owner="agent",
        started_at=1_234,
        asked_port=port,
        starter=None,
        guard=row.guard,
        leader=leader,
        state=State.READY,
        port=port,
        url=f"http://127.0.0.1:{port}",
        listener_pid=child.pid,
        listener_inode=row.listener_inode,
    )
    assert row.listener_inode


def test_a_server_without_a_job_file_is_found_by_its_guard(home: Path, live: Live) -> None:
    guard = live("a1", "devsup/guard/__main__.py", session="dev_server_web")
    hear(guard)
    child = live("a1", generation=5, session="dev_server_web")
    hear(child)
    [row] = living(home)
    assert (row.id, row.session, row.project, row.generation) == ("a1", "dev_server_web", "/p", 5)
    assert row.app == "web"
    assert row.command[0] == sys.executable
    assert row.cwd == os.getcwd()
    assert row.log.endswith("/dev_server_web.5.log")
    assert (row.guard, row.leader) == (identity.of(guard.pid), identity.of(child.pid))
    assert row.state is State.RUNNING


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"id": "other"}', '{"id": "a1", "port": "x"}'])
def test_half_a_job_file_is_no_reason_to_lose_a_server(home: Path, live: Live, content: str) -> None:
    hear(live("a1"))
    (home / "servers").mkdir()
    (home / "servers" / "a1.json").write_text(content)
    assert [row.id for row in living(home)] == ["a1"]


def test_the_guard_is_told_from_the_server(home: Path, live: Live) -> None:
    guard = live("a1", "devsup/guard/__main__.py")
    hear(guard)
    [row] = living(home)
    assert (row.guard, row.leader, row.state) == (identity.of(guard.pid), None, State.STARTING)
    leader = live("a1")
    hear(leader)
    [row] = living(home)
    assert (row.guard, row.leader) == (identity.of(guard.pid), identity.of(leader.pid))


def test_the_session_leader_below_the_guard_leads(home: Path, live: Live) -> None:
    """Something older may carry the marker: a helper of the guard, a shell that started it all."""
    code = """
import os, subprocess, sys
argv = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
helper = subprocess.Popen(argv, **pipes)
leader = subprocess.Popen(argv, **pipes, start_new_session=True)
for child in (helper, leader):
    child.stdout.readline()
print(leader.pid, flush=True)
sys.stdin.read()
for child in (helper, leader):
    child.communicate()
"""
    guard = live("a1", "devsup/guard/__main__.py", code=code)
    leader = int(hear(guard))
    [row] = living(home)
    assert row.leader == identity.of(leader)
    guard.communicate(timeout=10)


def test_a_restarted_server_has_the_generation_of_its_job(home: Path, live: Live) -> None:
    """The guard's own environment is still that of the first generation."""
    hear(live("a1", "devsup/guard/__main__.py", generation=1))
    job(home, "a1", generation=4, log="/logs/4.log")
    [row] = living(home)
    assert (row.generation, row.log) == (4, "/logs/4.log")
    hear(live("a1", generation=5))
    assert [row.generation for row in living(home)] == [5]


def test_another_home_is_not_looked_into(home: Path, temporary: Path, live: Live) -> None:
    hear(live("a1", at=temporary / "elsewhere"))
    assert living(home) == []


def test_of_two_in_one_session_the_younger_is_the_one(home: Path, live: Live) -> None:
    for server, generation in (("a1", 3), ("b2", 7), ("c3", 5)):
        job(home, server, generation=generation)
        hear(live(server, generation=generation))
    assert [(row.id, row.generation) for row in living(home)] == [("b2", 7)]


def test_of_two_in_one_folder_one_keeps_the_promise(home: Path, live: Live, registry: Registry) -> None:
    """Two rows with it would break the unique index, and so the whole rebuild."""
    for server, session in (("a1", "x"), ("b2", "y")):
        hear(live(server, session=session))
        job(home, server, session=session)
    assert {row.id: row.folder for row in living(home)} in (
        {"a1": "/p/web", "b2": None},
        {"a1": None, "b2": "/p/web"},
    )
    assert len(registry.rows()) == 2


def test_what_has_ended_unseen_is_lost(home: Path, registry: Registry) -> None:
    """`status` and `logs` still answer for it."""
    job(home, "a1", generation=6)
    assert registry.rows() == []
    [past] = registry.ended(id="a1")
    assert (past.state, past.generation, past.log, past.asked_port) == (State.LOST, 6, "/logs/1.log", 3000)
    assert registry.warnings == ["the registry could not be used (it was gone); no running server was found"]
    assert reserve(registry, make_row("b2", "x")).generation == 7


def test_a_marker_alone_is_no_server(home: Path, live: Live) -> None:
    """What a stopped server left behind carries it for ever; its stop has removed the job file."""
    hear(live("a1"))
    assert living(home) == []
    job(home, "a1")
    [row] = living(home)
    assert row.guard is not None
    assert identity.is_gone(row.guard)


def test_what_is_shared_with_others_is_no_server(home: Path, live: Live) -> None:
    """Not even where nobody wrote the server's end down: nothing of its own is left."""
    job(home, "a1", generation=6)
    hear(live("a1", code="import ctypes; ctypes.CDLL(None).prctl(15, b'watchman', 0, 0, 0)\n" + CODE))
    [row] = living(home)
    assert (row.state, row.leader) == (State.LOST, None)


def test_what_is_shared_and_serves_is_the_server(home: Path, live: Live) -> None:
    child = live(
        "a1", "listen", code="import ctypes; ctypes.CDLL(None).prctl(15, b'watchman', 0, 0, 0)\n" + CODE
    )
    job(home, "a1", port=int(hear(child)))
    [row] = living(home)
    assert (row.state, row.leader) == (State.READY, identity.of(child.pid))


def test_a_dead_process_is_not_living(home: Path, live: Live) -> None:
    job(home, "a1")
    child = live("a1")
    hear(child)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert [row.state for row in living(home)] == [State.LOST]


def test_a_claim_that_survived_the_loss_holds(live: Live, registry: Registry) -> None:
    """A guard was on its way when the registry went: it finds itself in the new one, and goes on."""
    guard = live("a1", "devsup/guard/__main__.py")
    hear(guard)
    who = identity.of(guard.pid)
    assert who is not None
    assert registry.claim("a1", 1, who)
    assert registry.record_child("a1", 1, identity.me(), guard=who)
    assert registry.update("a1", 1, state=State.READY, event="ready")
    assert registry.finish("a1", 1, state=State.STOPPED)
    assert registry.rows() == []
    assert [event.type for event in registry.events()] == ["recovered", "started", "ready", "stopped"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_server_in_a_container_keeps_its_own_numbers(home: Path, spawn: Spawn) -> None:
    """Seen from outside it has another pid than in its own scope, where its row is used."""
    machine, boot, _ = identity.here().key.split("/")
    job(home, "a1", scope=f"{machine}/{boot}/inner")
    marker = Marker(str(home), "/p", "x", "a1", 1)
    code = """
import subprocess, sys
inner = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
argv = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", inner]
sys.exit(subprocess.call(argv))
"""
    child = spawn(code, env={MARKER: str(marker)})
    first = hear(child)
    if not first:
        pytest.skip("no pid namespace can be made here")
    assert first == "1\n"
    [row] = living(home)
    assert row.scope == f"{machine}/{boot}/inner"
    # `unshare` and its parent are outside; only the inner one has another number.
    assert row.leader is not None
    infos = [info for info, _ in tree.marked(str(home))]
    inner = [recovery._identity(info, foreign=True) for info in infos]
    assert 1 in {who.pid for who in inner if who is not None}
    child.communicate(timeout=10)


# -- all of devsup ----------------------------------------------------------------------------------


def junk(home: Path) -> None:
    (home / "registry.db").write_text("dear diary\n" * 1000)


def remove_database(home: Path) -> None:
    for name in ("registry.db", "registry.db-wal", "registry.db-shm"):
        (home / name).unlink(missing_ok=True)


@pytest.mark.parametrize("lose", [junk, remove_database])
@pytest.mark.parametrize("guard", ["with its guard", "without a guard"])
def test_a_running_server_outlives_its_registry(
    home: Path, devsup: Devsup, lose: Callable[[Path], None], guard: str
) -> None:
    """It is listed with the same pid and port, not started twice, and stopped as on any day."""
    port = free_port()
    command = ("--port", port, "--", *server_argv("web", "--port", port))
    before = devsup("start", "--json", *command).data["server"]
    if guard == "without a guard":
        os.kill(before["guard_pid"], signal.SIGKILL)
        wait_until(lambda: gone(before["guard_pid"]))
    lose(home)
    answer = devsup("list", "--json")
    [after] = answer.data["servers"]
    assert any("registry could not be used" in note for note in answer.notes)
    unknown = {"guard_pid", "ready_at", "last_used_at"}
    assert {name: after[name] for name in after.keys() - unknown} == {
        name: before[name] for name in before.keys() - unknown
    }
    again = devsup("start", "--json", *command).data
    assert again["reused"] is True
    assert again["server"]["pid"] == before["pid"]
    [result] = devsup("stop", "--json", after["session"]).data["results"]
    assert (result["outcome"], result["survivors"], result["port_free"]) == ("stopped", [], True)
    assert devsup("list", "--json").data["servers"] == []
    past = devsup("status", "--json", after["session"]).data["server"]
    assert (past["state"], past["pid"]) == ("stopped", before["pid"])


def test_a_guard_that_loses_its_registry_still_records_the_end(home: Path, devsup: Devsup) -> None:
    """Nobody but the guard is there: its own write finds the loss, and rebuilds what it then ends."""
    port = free_port()
    before = devsup("start", "--json", "--port", port, "--", *server_argv("web", "--port", port)).data[
        "server"
    ]
    remove_database(home)
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: gone(before["guard_pid"]))
    registry = Registry(Home(str(home)))
    [event] = [one for one in registry.events() if one.type == "crashed"]
    assert event.server == before["id"]
    assert registry.warnings == []


def test_a_running_server_outlives_its_whole_home(home: Path, devsup: Devsup) -> None:
    """`rm -rf`: no file speaks of it any more, only the processes do."""
    port = free_port()
    before = devsup("start", "--json", "--port", port, "--", *server_argv("web", "--port", port)).data[
        "server"
    ]
    shutil.rmtree(home)
    [row] = Registry(Home(str(home))).rows()
    assert (row.id, row.session, row.port) == (before["id"], before["session"], port)
    [after] = devsup("list", "--json").data["servers"]
    same = ("id", "generation", "session", "project", "cwd", "command", "pid", "guard_pid", "port", "state")
    assert [after[name] for name in same] == [before[name] for name in same]
    [result] = devsup("stop", "--json", after["session"]).data["results"]
    assert (result["outcome"], result["survivors"], result["port_free"]) == ("stopped", [], True)


@pytest.fixture
def editor(devsup: Devsup, leftovers: Leftovers) -> int:
    """Start and stop a server that opens an editor; return the pid of that, which goes on."""
    leftovers.expected = True
    port = free_port()
    argv = server_argv("companions", "--name", "code", "--port", port)
    devsup("start", "ed", "--json", "--port", port, "--", *argv)
    [result] = devsup("stop", "ed", "--json").data["results"]
    [left] = result["left_running"]
    assert isinstance(left["pid"], int)
    return left["pid"]


def test_what_a_stopped_server_left_running_never_becomes_a_server(
    home: Path, devsup: Devsup, editor: int
) -> None:
    """Its marker outlives server and registry; `stop --all` must not end a person's editor by it."""
    remove_database(home)
    assert devsup("list", "--json").data["servers"] == []
    assert devsup("stop", "--all", "--json").data["results"] == []
    port = free_port()
    again = devsup("start", "ed", "--json", "--port", port, "--", *server_argv("web", "--port", port)).data
    assert again["reused"] is False
    remove_database(home)
    [found] = devsup("list", "--json").data["servers"]
    assert found["id"] == again["server"]["id"]
    [result] = devsup("stop", "--all", "--json").data["results"]
    assert result["outcome"] == "stopped"
    assert os.path.exists(f"/proc/{editor}")


@pytest.mark.usefixtures("editor")
def test_what_a_stopped_server_left_running_blocks_no_start_elsewhere(
    devsup: Devsup, temporary: Path, leftovers: Leftovers
) -> None:
    """Only a server that lives is refused under another state folder."""
    other = {"DEVSUP_HOME": str(temporary / "other")}
    leftovers.watch(temporary / "other")
    port = free_port()
    command = ("--port", port, "--", *server_argv("web", "--port", port))
    assert devsup("start", "ed", "--json", *command, env=other).data["reused"] is False
    refused = devsup("start", "ed", "--json", *command)
    assert refused.error["code"] == "name_taken"
    assert refused.error["details"]["home"] == other["DEVSUP_HOME"]
    devsup("stop", "ed", "--json", env=other)


def test_a_rebuilt_server_answers_to_its_name(home: Path, devsup: Devsup) -> None:
    """Also where no job file says it: the session does."""
    port = free_port()
    before = devsup("start", "web", "--json", "--port", port, "--", *server_argv("web", "--port", port)).data
    shutil.rmtree(home)
    assert devsup("status", "web", "--json").data["server"]["pid"] == before["server"]["pid"]
    [result] = devsup("stop", "web", "--json").data["results"]
    assert result["outcome"] == "stopped"

"""
Between the command that starts a server, its guard and the server there is no moment at which nobody has it.

A guard here is the real one; where a test must stop it between two steps, one method is replaced in the
guard's own process, and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from devsup import identity
from devsup.clock import now_ms
from devsup.guard import job as jobs
from devsup.guard.job import Job
from devsup.guard.spawn import START, Hearing, spawn
from devsup.models import Identity, Row, State, StopClaim
from devsup.paths import Home, ensure_home
from devsup.registry import Registry
from tests.registry_child import make_row
from tests.serving import LINUX_ONLY, Servers, alive, pid_at, process, script
from tests.support import ROOT, free_port, processes_of, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup
    from tests.support import Spawn as SpawnProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

#: A guard whose method is replaced: the interpreter runs it instead of the package's own file.
GUARD = """#!{python} -IS
import os, sys
sys.argv = sys.argv[3:]  # as of `python -I -S FILE`
sys.path.append({root!r})
from devsup.guard import __main__ as start
start.detach()
import signal, time
from devsup import identity
from devsup.guard import beginning, charge
from devsup.registry import Registry

def wait_for(name):
    deadline = time.monotonic() + 30
    while not os.path.exists(os.path.join({folder!r}, name)):
        assert time.monotonic() < deadline
        time.sleep(0.005)

def note(name):
    open(os.path.join({folder!r}, name), "w").close()

record_child = Registry.record_child
{code}
sys.exit(beginning.main(sys.argv[1:]))
"""


class Handover:
    """A reservation as `start` makes it, and its guard."""

    def __init__(self, home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = project
        self.home = Home(str(home))
        ensure_home(self.home)
        self.registry = Registry(self.home, rebuild=list)
        self.monkeypatch = monkeypatch
        #: What the server does first of all.
        self.ran = project / "ran"

    def reserve(self, *command: str) -> Row:
        """Reserve ``command``, by default one that leaves a file when it runs, and write its job."""
        code = "import signal\nopen('ran', 'w').close()\nsignal.pause()"
        command = command or (sys.executable, "-IS", "-c", code)
        row = make_row(
            uuid.uuid4().hex[:12],  # by it the processes are known, also those of other tests beside this one
            project=str(self.folder),
            cwd=str(self.folder),
            kind="command",
            command=list(command),
            started_at=now_ms(),
        )
        reserved = self.registry.reserve(
            row,
            dead=[],
            limit=9,
            port=None,
            log_of=lambda generation: self.home.log(str(self.folder), row.session, generation),
        )
        own: dict[str, Any] = {
            "home": self.home.root,
            "executable": command[0],
            "port": None,
            "default_port": None,
            "probe": {},
            "policy": {},
            "fleet": None,
        }
        job = Job(**{name: own[name] if name in own else getattr(reserved, name) for name in Job._fields})
        os.makedirs(os.path.dirname(reserved.log), mode=0o700, exist_ok=True)
        jobs.write(self.home.job(reserved.id), job)
        return reserved

    def guard(self, row: Row, code: str = "", environ: dict[str, str] | None = None) -> Hearing:
        """Start the guard of ``row``; ``code`` replaces some of it, ``environ`` the test's environment."""
        if code:
            shim = self.folder / "guard"
            text = GUARD.format(python=sys.executable, root=str(ROOT), folder=str(self.folder), code=code)
            shim.write_text(text)
            shim.chmod(0o700)
            self.monkeypatch.setattr(sys, "executable", str(shim))
        job = jobs.read(self.home.job(row.id))
        marker = f'{{"home":"{self.home.root}","project":"{row.project}","session":"{row.session}",'
        marker += f'"id":"{row.id}","generation":{row.generation}}}'
        given = os.environ if environ is None else environ
        changed = {**given, "DEVSUP_MARKER": marker}
        hearing = spawn(job, changed, mode=START, log=self.home.guard_log(row.project, row.session))
        self.monkeypatch.undo()
        return hearing

    def row(self, row: Row) -> Row | None:
        """Return the row as it is now."""
        return self.registry.row(row.id)

    def ended(self, row: Row) -> Row:
        """Return the end of ``row`` from the history."""
        (end,) = self.registry.ended(id=row.id)
        return end

    def nobody_is_left(self) -> bool:
        """Tell whether neither guard nor server lives."""
        return processes_of(self.home.root) == []


@pytest.fixture
def handover(home: Path, project: Path) -> Handover:
    # A patch of its own: the one of the whole test holds the test's environment.
    return Handover(home, project, pytest.MonkeyPatch())


def heard_all(hearing: Hearing) -> str:
    """Return the steps that a guard told of before it closed its pipe."""
    hearing.wait("never", time.monotonic() + 30)
    assert hearing.ended
    return hearing.steps


def somebody(spawn: SpawnProcess) -> Identity:
    """Return a living process."""
    who = identity.of(spawn("import sys; sys.stdin.read()").pid)
    assert who is not None
    return who


# -- who may guard ---------------------------------------------------------------------------------


def test_a_guard_that_claims_its_reservation_runs_the_server(handover: Handover) -> None:
    """The tests below take something away from this."""
    row = handover.reserve()
    with handover.guard(row) as hearing:
        assert hearing.wait("r", time.monotonic() + 30)
        assert hearing.steps == "clr"
    now = handover.row(row)
    assert now is not None
    assert (now.state, now.port) == (State.RUNNING, None)
    assert now.guard is not None
    assert handover.ran.exists()
    os.kill(now.guard.pid, signal.SIGTERM)
    wait_until(handover.nobody_is_left)
    assert handover.ended(row).state is State.STOPPED


def test_a_guard_that_comes_too_late_runs_nothing(handover: Handover) -> None:
    """A stop has taken the reservation away before its guard had claimed it."""
    row = handover.reserve()
    assert handover.registry.withdraw(row.id, row.generation)
    with handover.guard(row) as hearing:
        assert heard_all(hearing) == ""
    wait_until(handover.nobody_is_left)
    assert not handover.ran.exists()


def test_a_guard_of_an_earlier_generation_runs_nothing(handover: Handover) -> None:
    row = handover.reserve()
    job = jobs.read(handover.home.job(row.id))
    jobs.write(handover.home.job(row.id), job.replace(generation=row.generation - 1))
    with handover.guard(row) as hearing:
        assert heard_all(hearing) == ""
    wait_until(handover.nobody_is_left)
    assert not handover.ran.exists()
    assert handover.registry.withdraw(row.id, row.generation)


def test_two_guards_of_one_reservation_run_one_server(handover: Handover) -> None:
    """Two commands believed that the other was dead."""
    row = handover.reserve()
    with handover.guard(row) as one, handover.guard(row) as two:
        assert sorted((one.wait("r", time.monotonic() + 30), two.wait("r", time.monotonic() + 30))) == [
            False,
            True,
        ]
    now = handover.row(row)
    assert now is not None
    assert now.guard is not None

    def guards() -> list[int]:
        found = processes_of(handover.home.root)
        return [one.pid for one in found if "guard/__main__.py" in one.command]

    guard = now.guard.pid
    wait_until(lambda: guards() == [guard])  # the other one has let go of its pipe, and ends
    os.kill(guard, signal.SIGTERM)
    wait_until(handover.nobody_is_left)


def test_a_reservation_that_another_guard_has_is_left_to_it(handover: Handover, spawn: SpawnProcess) -> None:
    row = handover.reserve()
    other = somebody(spawn)
    assert handover.registry.claim(row.id, row.generation, other)
    with handover.guard(row) as hearing:
        assert heard_all(hearing) == ""
    assert not handover.ran.exists()
    now = handover.row(row)
    assert now is not None
    assert now.guard == other


def test_a_stop_that_was_claimed_before_the_guard_came_wins(handover: Handover) -> None:
    row = handover.reserve()
    claim = StopClaim(identity.me(), now_ms(), "stop", 5.0, sweep=False)
    assert handover.registry.claim_stop(row.id, row.generation, claim) == claim
    with handover.guard(row) as hearing:
        assert heard_all(hearing) == ""
    wait_until(handover.nobody_is_left)
    assert not handover.ran.exists()


@LINUX_ONLY
def test_a_guard_adds_nothing_to_the_environment_but_the_marker(handover: Handover) -> None:
    """Where there is no locale Python makes one up, and tells its children."""
    row = handover.reserve("/usr/bin/env")
    with handover.guard(row, environ={"COLOUR": "red"}) as hearing:
        heard_all(hearing)
    wait_until(lambda: bool(handover.registry.ended(id=row.id)))
    with open(row.log, encoding="utf-8") as log:
        names = [line.partition("=")[0] for line in log]
    assert sorted(names) == ["COLOUR", "DEVSUP_MARKER"]


# -- recorded before it runs -----------------------------------------------------------------------

HELD = """
def record(self, *args, **kwargs):
    note("forked")
    wait_for("go")
    return record_child(self, *args, **kwargs)
Registry.record_child = record
"""


@LINUX_ONLY
def test_a_child_waits_until_it_is_recorded(handover: Handover) -> None:
    """However long that takes: its guard has forked it, and it executes nothing."""
    row = handover.reserve()
    with handover.guard(row, HELD) as hearing:
        wait_until((handover.folder / "forked").exists)
        now = handover.row(row)
        assert now is not None
        assert now.guard is not None
        assert now.leader is None
        (child,) = process(now.guard.pid).children()
        # At the gate, asleep in `read`, and still the guard's own image.
        wait_until(lambda: child.status() == psutil.STATUS_SLEEPING)
        assert child.cmdline() == process(now.guard.pid).cmdline()
        assert not handover.ran.exists()
        (handover.folder / "go").touch()
        assert hearing.wait("l", time.monotonic() + 30)
        now = handover.row(row)
        assert now is not None
        assert now.leader is not None
        assert now.leader.pid == child.pid
        wait_until(handover.ran.exists)
        assert now.guard is not None
        os.kill(now.guard.pid, signal.SIGTERM)
    wait_until(handover.nobody_is_left)


READS_ITS_ROW = """
import os
sys.path.append(os.environ["REPOSITORY"])
from stand_in import listen, obey, out, serve, wanted_port
from devsup.paths import find_home
from devsup.registry import Registry
(row,) = Registry(find_home()).rows()
out(f"{row.leader.pid} is {os.getpid()}, {row.state.value}")
obey()
serve(listen(wanted_port()))
"""


def test_a_server_finds_itself_in_the_registry(servers: Servers) -> None:
    """Its first look comes after the record, every time."""
    port = free_port()
    command = script(servers.project, "reader", READS_ITS_ROW)
    server = servers.start("web", *command, port=port, env={"REPOSITORY": str(ROOT)})
    assert servers.log(server) == f"{server['pid']} is {server['pid']}, starting\n"
    servers.stop("web")
    servers.nothing_is_left(port)


REFUSED = "Registry.record_child = lambda self, *args, **kwargs: False"
KILLED = """
def record(self, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
Registry.record_child = record
"""
KILLED_AFTER = """
def record(self, *args, **kwargs):
    record_child(self, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
Registry.record_child = record
"""
CHILD_KILLED = """
def record(self, server, generation, leader, *, guard):
    recorded = record_child(self, server, generation, leader, guard=guard)
    assert identity.signal(leader, signal.SIGKILL)
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    return recorded
Registry.record_child = record
"""


def test_a_child_that_is_not_recorded_ends_unrun(handover: Handover) -> None:
    """A stop was faster: the gate closes, and end of file is not the byte."""
    row = handover.reserve()
    with handover.guard(row, REFUSED) as hearing:
        assert heard_all(hearing) == "c"
    wait_until(handover.nobody_is_left)
    assert not handover.ran.exists()
    assert handover.row(row) is None
    assert handover.ended(row).state is State.STOPPED
    assert not os.path.exists(handover.home.job(row.id))


@pytest.mark.parametrize("moment", [KILLED, KILLED_AFTER], ids=["before the record", "after the record"])
def test_a_child_whose_guard_is_killed_at_the_gate_ends_unrun(
    handover: Handover, servers: Servers, moment: str
) -> None:
    row = handover.reserve()
    with handover.guard(row, moment) as hearing:
        assert heard_all(hearing) == "c"
    wait_until(handover.nobody_is_left)
    assert not handover.ran.exists()
    (dead,) = servers.listed()
    assert (dead["id"], dead["state"], dead["guard_pid"]) == (row.id, "crashed", None)
    # The next start finds that nobody is left, and takes the session.
    again = servers.start("web", sys.executable, "-c", "import signal; signal.pause()")
    assert again["id"] != row.id
    servers.stop("web")
    servers.nothing_is_left()


def test_a_child_that_is_killed_at_the_gate_has_crashed(handover: Handover) -> None:
    row = handover.reserve()
    with handover.guard(row, CHILD_KILLED) as hearing:
        heard_all(hearing)
    wait_until(handover.nobody_is_left)
    assert not handover.ran.exists()
    end = handover.ended(row)
    assert (end.state, end.signal, end.exit_code) == (State.CRASHED, signal.SIGKILL, None)


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


# -- a command that cannot be executed -------------------------------------------------------------


def test_a_command_that_cannot_be_executed_is_127_and_says_why(servers: Servers) -> None:
    """The kernel alone knows: it is there, it may be executed, and it is no program."""
    program = servers.project / "program"
    program.write_text("no program at all\n")
    program.chmod(0o700)
    answer = servers.try_start("web", program, port=free_port())
    assert (answer.code, answer.error["code"]) == (5, "exited_early")
    details = answer.error["details"]
    assert (details["exit_code"], details["signal"]) == (127, None)
    assert details["log_tail"] == f"devsup: cannot execute `{program}`: Exec format error\n"
    servers.nothing_stays()


def test_a_folder_that_vanishes_before_the_start_is_named(servers: Servers) -> None:
    """The folder is there when the command is checked, and gone when its child enters it."""
    folder = servers.project / "folder"
    folder.mkdir()
    # The caller's own PATH look-up happens in that folder, so it exists until the guard has it.
    code = f"""
import os
from devsup.guard import spawn
spawn_guard = spawn.spawn
def vanish(*args, **kwargs):
    os.rmdir({str(folder)!r})
    return spawn_guard(*args, **kwargs)
from devsup.supervisor import launching
launching.spawn = vanish
from devsup.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    command = script(servers.project, "vanishing", code)
    done = servers.run(*command, "-C", folder, "start", "web", "--json", "--", sys.executable, "-c", "pass")
    assert (done.code, done.error["code"]) == (5, "exited_early")
    assert f"cannot enter `{folder}`" in done.error["details"]["log_tail"]
    servers.nothing_stays()


# -- a guard that nothing wakes --------------------------------------------------------------------


@LINUX_ONLY
def test_without_a_subreaper_the_end_of_a_background_command_is_seen(handover: Handover) -> None:
    """It is nobody's child and listens nowhere; and no look for a listener shows it by the way."""
    row = handover.reserve("/bin/sh", "-c", "while [ ! -e leave ]; do sleep 0.05; done &")
    environ = {**os.environ, "DEVSUP_WITHOUT": "subreaper"}
    with handover.guard(row, "charge.Watch.relax = charge.Watch.stop", environ) as hearing:
        assert hearing.wait("r", time.monotonic() + 30)
    now = handover.row(row)
    assert now is not None
    assert now.state is State.RUNNING
    (handover.folder / "leave").touch()
    wait_until(handover.nobody_is_left)
    end = handover.row(row)
    assert end is not None
    assert (end.state, end.exit_code) == (State.EXITED, 0)


# -- a guard that takes over -----------------------------------------------------------------------


def test_a_program_of_the_path_is_restarted_by_a_new_guard(servers: Servers) -> None:
    """A new guard knows where the program lies, not only what it is called."""
    port = free_port()
    command = ["sh", "-c", 'exec "$@"', "sh", *server_argv("web")]
    server = servers.start("web", *command, port=port)
    guard = process(server["guard_pid"])
    guard.kill()
    wait_until(lambda: not alive(guard))
    servers.start("web", *command, port=port)
    again = servers.devsup("restart", "web", "--json").data["server"]
    assert pid_at(again["url"]) == again["pid"] != server["pid"]
    servers.stop("web")
    servers.nothing_is_left(port)

"""
What is wrong is really made, seen by `doctor`, mended by the command that it names, and gone.

Each situation is a context: inside of it the trouble is there. A fix that is no command is done by hand.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, identity
from devsup.doctor import PARTS, environment
from devsup.locks import LockManager
from devsup.models import HealthFinding
from devsup.paths import Home
from devsup.registry import Registry
from devsup.tree import MARKER, Marker
from tests.registry_support import mounted
from tests.serving import LINUX_ONLY, Servers, pid_at, script
from tests.support import (
    ROOT,
    devsup_argv,
    free_port,
    hear,
    is_listening,
    say,
    server_argv,
    wait_until,
)
from tests.test_contract import checked
from tests.test_lock_manager import CIRCLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from devsup.models import Health
    from tests.support import Devsup, Spawn, StandIn

    Mend = Callable[[], object]

pytestmark = LINUX_ONLY


class Place:
    """A project, its state folder, and what may be done there."""

    def __init__(
        self,
        devsup: Devsup,
        home: Path,
        project: Path,
        spawn: Spawn,
        stand_in: StandIn,
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.devsup = devsup
        self.home = home
        self.project = project
        self.spawn = spawn
        self.stand_in = stand_in
        self.patch = patch
        self.servers = Servers(devsup, home, project)
        #: What does by hand what a sentence says.
        self.by_hand: Mend | None = None

    def look(self) -> Health:
        """Return what doctor says now."""
        return Supervisor(str(self.project)).doctor()

    def find(self, kind: str) -> list[HealthFinding]:
        """Return the findings of a kind."""
        found = [one for part in self.look().parts for one in part.findings]
        return [one for one in found if one.id.partition(":")[0] == kind]

    def follow(self, fix: str) -> None:
        """Do what a fix says: type the command, or do by hand what the sentence says."""
        words = shlex.split(fix) if fix.startswith(("devsup ", "kill ", "mkdir ", "mv ", "chmod ")) else []
        if words[:1] == ["devsup"]:
            answer = self.devsup(*words[1:])
            assert answer.code in (0, 14), answer
        elif words:
            subprocess.run(fix, shell=True, check=True, cwd=self.project)
        else:
            assert self.by_hand is not None, fix
            self.by_hand()


@pytest.fixture
def place(
    devsup: Devsup,
    home: Path,
    project: Path,
    spawn: Spawn,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """Give a project in which nothing is wrong."""
    monkeypatch.setenv("SHELL", "/bin/sh")
    return Place(devsup, home, project, spawn, stand_in, monkeypatch)


# -- the situations ----------------------------------------------------------------------------------------


@contextmanager
def damaged(place: Place) -> Iterator[None]:
    """Overwrite a page that no command reads on its usual way."""
    place.servers.start("web", *server_argv("web"), port=free_port())
    place.servers.stop("web")
    path = place.home / "registry.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'history_of_pid'")
    [(size,)] = connection.execute("PRAGMA page_size")
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    yield


@contextmanager
def unreadable(place: Place) -> Iterator[None]:
    place.servers.start("web", *server_argv("web"), port=free_port())
    (place.home / "registry.db").write_bytes(b"no registry" * 1000)
    yield
    assert [one["state"] for one in place.devsup("--json", "list").data["servers"]] == ["ready"]
    place.servers.stop("web")


@contextmanager
def linked(place: Place) -> Iterator[None]:
    place.devsup("list")
    database = place.home / "registry.db"
    database.symlink_to(place.home / "elsewhere.db")
    place.by_hand = database.unlink
    yield


@contextmanager
def held_long(place: Place) -> Iterator[None]:
    code = (
        "import sys, time\n"
        "from devsup.locks import LockManager\n"
        "real = time.monotonic\n"
        "manager = LockManager(sys.argv[1])\n"
        "time.monotonic = lambda: real() - 120\n"
        "with manager.process('build').write():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = place.spawn(code, f"{place.home}/locks")
    assert hear(holder) == "held\n"
    yield
    assert holder.wait(20) == -signal.SIGTERM


@contextmanager
def inherited(place: Place) -> Iterator[None]:
    code = (
        "import ctypes, os, sys, time\n"  # Python's own fork lets a child have no lock of ours
        "from devsup.locks import LockManager\n"
        "with LockManager(sys.argv[1]).process('build').write():\n"
        "    if (child := ctypes.CDLL(None).fork()) == 0:\n"
        "        time.sleep(1000)\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    holder = place.spawn(code, f"{place.home}/locks")
    child = int(hear(holder))
    assert holder.wait(20) == -signal.SIGKILL
    yield
    with LockManager(f"{place.home}/locks").process("build").write(timeout=20):
        wait_until(lambda: is_over(child))  # its lock is free a moment before


def is_zombie(pid: int) -> bool:
    """Tell whether only its exit status is left."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


@contextmanager
def circle(place: Place) -> Iterator[None]:
    (place.home / "locks").mkdir(exist_ok=True)
    paths = [f"{place.home}/locks/{name}.lock" for name in ("a", "b")]
    children = [place.spawn(CIRCLE, *paths), place.spawn(CIRCLE, *reversed(paths))]
    assert [hear(child) for child in children] == ["held\n"] * 2
    for child in children:
        say(child)
    yield


@contextmanager
def contended(place: Place) -> Iterator[None]:
    folder = f"{place.home}/locks"
    lock = LockManager(folder).process("build")
    code = (
        "import sys\n"
        "from devsup.errors import LockTimeout\n"
        "from devsup.locks import LockManager\n"
        "for _ in range(6):\n"
        "    try:\n"
        "        with LockManager(sys.argv[1]).process('build').write(timeout=0.01): pass\n"
        "    except LockTimeout: pass\n"
    )
    with lock.write():
        assert place.spawn(code, folder).wait(30) == 0

    def be_patient() -> None:
        for _ in range(10):
            with lock.write():
                pass

    place.by_hand = be_patient
    yield


@contextmanager
def open_work(place: Place) -> Iterator[None]:
    place.servers.start("web", *server_argv("web"), port=free_port())
    code = (
        "import os, sys\n"
        "from devsup import Supervisor\n"
        "with Supervisor(sys.argv[1]).operation('web', purpose='migration'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert place.spawn(code, place.project).wait(30) == -signal.SIGKILL
    yield
    place.servers.stop("web")


@contextmanager
def dead(place: Place) -> Iterator[None]:
    server = place.servers.start("web", *server_argv("web"), port=free_port())
    for pid in (server["guard_pid"], server["pid"]):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_over, (server["guard_pid"], server["pid"]))))
    yield


def is_over(pid: int) -> bool:
    """Tell whether nothing of the process runs any more."""
    try:
        return is_zombie(pid)
    except OSError:
        return True


@contextmanager
def unguarded(place: Place) -> Iterator[None]:
    server = place.servers.start("web", *server_argv("web"), port=free_port())
    os.kill(server["guard_pid"], signal.SIGKILL)
    wait_until(lambda: is_over(server["guard_pid"]))
    yield
    now = place.servers.find("web")
    assert (now["pid"], now["guard_pid"] is not None) == (server["pid"], True)
    place.servers.stop("web")


@contextmanager
def unhealthy(place: Place) -> Iterator[None]:
    going = script(
        place.project,
        "going",
        "import subprocess, time\nfrom stand_in import obey\nobey()\n"
        f"subprocess.run({server_argv('web')!r} + sys.argv[1:])\n"
        "while True: time.sleep(1)\n",
    )
    server = place.servers.start("web", *going, port=free_port())
    os.kill(pid_at(server["url"]), signal.SIGKILL)
    wait_until(lambda: place.servers.find("web")["state"] == "unhealthy")
    yield
    place.servers.stop("web")


@contextmanager
def zombies(place: Place) -> Iterator[None]:
    """Leave a child unreaped, once; the server that runs again reaps it."""
    flag = place.project / "once"
    code = (
        "import os, time\n"
        f"if not os.path.exists({str(flag)!r}):\n"
        f"    open({str(flag)!r}, 'w').close()\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "import web\n"
    )
    place.servers.start("web", *script(place.project, "careless", code), port=free_port())
    yield
    place.servers.stop("web")


@contextmanager
def abandoned(place: Place) -> Iterator[None]:
    """Kill who stops a server without a guard, when it has just claimed that."""
    server = place.servers.start("web", *server_argv("stubborn"))
    os.kill(server["guard_pid"], signal.SIGKILL)
    wait_until(lambda: is_over(server["guard_pid"]))
    stop = subprocess.Popen(devsup_argv("stop", "web", "--grace", 60), cwd=place.project)
    wait_until(lambda: Registry(Home(str(place.home))).rows()[0].stop is not None)
    stop.kill()
    stop.wait()
    yield
    assert is_over(server["pid"])


@contextmanager
def orphaned(place: Place) -> Iterator[None]:
    place.devsup("list")
    marker = Marker(str(place.home), str(place.project), "dev_server_lost", os.urandom(6).hex(), 1)
    child = place.spawn("print('up', flush=True); import time; time.sleep(1000)", env={MARKER: str(marker)})
    assert hear(child) == "up\n"
    yield
    assert child.wait(20) == -signal.SIGTERM


def _wanting(place: Place) -> int:
    port = free_port()
    command = json.dumps(server_argv("web"))
    (place.project / "devsup.toml").write_text(f"[apps.web]\ncommand = {command}\nport = {port}\n")
    return port


@contextmanager
def taken_here(place: Place) -> Iterator[None]:
    port = _wanting(place)
    stranger = place.stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port))
    yield
    [server] = place.devsup("--json", "list").data["servers"]
    assert server["pid"] == stranger.pid
    place.servers.stop(stranger.pid)
    stranger.wait(20)


@contextmanager
def taken_elsewhere(place: Place) -> Iterator[None]:
    port = _wanting(place)
    place.stand_in("web", "--port", port, cwd=place.home)
    wait_until(lambda: is_listening(port))
    yield
    assert place.servers.find("web")["port"] != port
    place.servers.stop("web")


LISTEN = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as one:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((sys.argv[1], int(sys.argv[2])))
    one.listen()
    print("up", flush=True)
    while True:
        one.accept()[0].close()
"""


@contextmanager
def split(place: Place) -> Iterator[None]:
    port = free_port()
    command = [sys.executable, "-c", LISTEN, "127.0.0.1", str(port)]
    place.servers.start("web", *command, port=port)
    stranger = place.spawn(LISTEN, "::1", port, env={"DEVSUP_MARKER": ""})
    assert hear(stranger) == "up\n"
    yield
    assert stranger.wait(20) == -signal.SIGTERM
    place.servers.stop("web")


@contextmanager
def no_log_folder(place: Place) -> Iterator[None]:
    place.devsup("list")
    (place.home / "logs").write_text("")
    yield


def _filled(place: Place, mib: int) -> None:
    """Fill the disk with logs of generations that nobody needs."""
    state = Home(str(place.home))
    place.servers.start("web", *server_argv("web"), port=free_port())
    place.servers.stop("web")
    for generation in range(900, 906):
        Path(state.log(str(place.project), "dev_server_web", generation)).write_bytes(bytes(mib * 2**20))


@contextmanager
def full_disk(place: Place) -> Iterator[None]:
    with mounted(place.home, "size=64m"):
        _filled(place, 9)
        yield


@contextmanager
def few_files(place: Place) -> Iterator[None]:
    with mounted(place.home, "nr_inodes=200"):
        place.servers.start("web", *server_argv("web"), port=free_port())
        remount = ["mount", "-o", "remount,nr_inodes=100000", str(place.home)]
        place.by_hand = lambda: subprocess.run(remount, check=True)
        yield
        place.servers.stop("web")


@contextmanager
def no_tmpdir(place: Place) -> Iterator[None]:
    place.patch.setenv("TMPDIR", str(place.project / "not there"))
    yield


@contextmanager
def no_home(place: Place) -> Iterator[None]:
    place.patch.setenv("HOME", "/nonexistent")
    place.by_hand = lambda: place.patch.setenv("HOME", str(place.home))
    yield


def _programs(place: Place, **scripts: str) -> Path:
    folder = place.project / "bin"
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


@contextmanager
def no_node(place: Place) -> Iterator[None]:
    (place.project / "package.json").write_text("{}")
    before, folder = os.environ["PATH"], _programs(place)
    place.patch.setenv("PATH", str(folder))

    def install() -> None:
        (folder / "node").write_text("#!/bin/sh\necho v22.1.0\n")
        (folder / "node").chmod(0o755)

    place.by_hand = install
    yield
    place.patch.setenv("PATH", before)


@contextmanager
def no_pnpm(place: Place) -> Iterator[None]:
    (place.project / "package.json").write_text('{"packageManager": "pnpm@9.0.0"}')
    folder = _programs(place, node="echo v22.1.0")
    before = os.environ["PATH"]
    place.patch.setenv("PATH", str(folder))

    def install() -> None:
        (folder / "pnpm").write_text("#!/bin/sh\necho 9.0.0\n")
        (folder / "pnpm").chmod(0o755)

    place.by_hand = install
    yield
    place.patch.setenv("PATH", before)


@contextmanager
def silent_program(place: Place) -> Iterator[None]:
    notes = place.project / "asleep"
    sleep = shutil.which("sleep")
    folder = _programs(place, bun=f"{sleep} 600 & echo $! >> {shlex.quote(str(notes))}; wait")
    # Alone: on a busy machine others may be silent for too long, too.
    before = os.environ["PATH"]
    place.patch.setenv("PATH", str(folder))
    place.by_hand = (folder / "bun").unlink
    yield
    place.patch.setenv("PATH", before)
    asleep = [int(pid) for pid in notes.read_text().split()]
    assert asleep
    assert wait_until(lambda: all(identity.of(pid) is None for pid in asleep), 20)


@contextmanager
def early_clock(place: Place) -> Iterator[None]:
    registry = Registry(Home(str(place.home)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devsup.registry.frozen.now_ms", lambda: round((time.time() + 3600) * 1e3))
        registry.add_event("finding", reason="written when the clock was ahead")
    place.by_hand = lambda: registry.add_event("finding", reason="written now")
    yield


@contextmanager
def broken_config(place: Place) -> Iterator[None]:
    file = place.project / "devsup.toml"
    place.devsup("list")
    file.write_text("{[")
    place.by_hand = lambda: file.write_text("")
    yield


@contextmanager
def no_completions(place: Place) -> Iterator[None]:
    user = place.home / "user"
    user.mkdir()
    place.patch.setenv("HOME", str(user))
    place.patch.setenv("SHELL", "/bin/bash")
    place.patch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")

    def install() -> None:
        # It asks which shell it was typed into.
        subprocess.run(["bash", "-c", "devsup --install-completion; exit $?"], check=True, cwd=place.project)

    place.by_hand = install
    yield


#: Kind of the finding -> what makes it, whether it is bad (else a warning), whether `--fix` mends it.
SITUATIONS: dict[str, tuple[Callable[[Place], AbstractContextManager[None]], bool, bool]] = {
    "registry_damaged": (damaged, True, True),
    "registry_rebuilt": (unreadable, False, False),
    "registry_unusable": (linked, True, False),
    "lock_held": (held_long, False, False),
    "lock_inherited": (inherited, True, False),
    "lock_cycle": (circle, True, False),
    "lock_contended": (contended, False, False),
    "operation_dead": (open_work, False, True),
    "server_dead": (dead, False, True),
    "server_unguarded": (unguarded, False, True),
    "server_unhealthy": (unhealthy, True, False),
    "server_zombies": (zombies, False, False),
    "stop_abandoned": (abandoned, True, False),
    "process_orphaned": (orphaned, False, True),
    "port_taken": (taken_here, False, False),
    "port_taken elsewhere": (taken_elsewhere, False, False),
    "port_split": (split, True, False),
    "config_invalid": (broken_config, True, False),
    "logs_unwritable": (no_log_folder, True, False),
    "disk_full": (full_disk, True, True),
    "inodes_low": (few_files, True, False),
    "tmpdir_unusable": (no_tmpdir, True, False),
    "home_unwritable": (no_home, False, False),
    "node_missing": (no_node, True, False),
    "manager_missing": (no_pnpm, False, False),
    "program_silent": (silent_program, False, False),
    "clock_behind": (early_clock, False, False),
    "completions_missing": (no_completions, False, False),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_finding_is_seen_and_its_fix_mends_it(name: str, place: Place) -> None:
    """The command stands in the finding and is typed as it is; where it is safe `--fix` would do it too."""
    make, bad, safe = SITUATIONS[name]
    kind = name.partition(" ")[0]
    assert place.find(kind) == []
    with make(place):
        found = wait_until(lambda: place.find(kind), 20)
        assert len(found) == 1, found
        [one] = found
        assert one.message.isprintable()
        assert one.safe is safe
        status = next(
            part.status for part in place.look().parts if _has(part, kind) or kind == "registry_rebuilt"
        )
        if kind != "registry_rebuilt":  # which the first look has mended
            assert status == ("bad" if bad else "warn")
        if name in ("manager_missing", "completions_missing"):
            assert place.by_hand is not None
            place.by_hand()  # the one wants the network, the other to be typed into that shell
        elif kind != "registry_rebuilt":
            place.follow(one.fix)
        assert wait_until(lambda: place.find(kind) == [], 20)


def test_a_registry_that_is_larger_than_it_needs_to_be_gives_that_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is stopped for it. One that needs its size is left alone: what is in it is somebody's."""
    monkeypatch.setattr("devsup.doctor.registry._LARGE", 2**20)
    server = place.servers.start("web", *server_argv("web"), port=free_port())
    path = place.home / "registry.db"

    def run(*statements: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)

    fill = "INSERT INTO ballast VALUES (zeroblob(3000000))"
    run("CREATE TABLE ballast (x)", fill)
    [one] = place.find("registry_large")
    assert (one.safe, one.fix.startswith("devsup ")) == (False, False)
    assert "needs 2" in one.message
    run("DROP TABLE ballast")
    [one] = place.find("registry_large")
    assert (one.safe, one.fix) == (True, "devsup doctor --fix")
    assert path.stat().st_size > 3_000_000
    mended = Supervisor(str(place.project)).doctor(fix=True)
    assert "fixed `registry_large`: it takes 0 MiB now" in mended.notes
    assert place.find("registry_large") == []
    assert path.stat().st_size < 1_000_000
    # What is in the write-ahead log only, as somebody reads on, is used or free as all else is.
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        run("CREATE TABLE ballast (x)", fill)
        [one] = place.find("registry_large")
        assert "needs 2" in one.message
        run("DROP TABLE ballast")
        [one] = place.find("registry_large")
        assert one.message.endswith("and needs 0")
    assert place.servers.find("web")["pid"] == server["pid"]
    place.servers.stop("web")


def test_the_whole_of_a_fix(place: Place) -> None:
    """Nothing is ended or changed without `--fix`; with it the safe things are done, and it says which."""
    answer = checked(place.devsup("doctor", "--json"), "doctor")
    assert [part["part"] for part in answer["data"]["parts"]] == list(PARTS)
    here = [part for part in answer["data"]["parts"] if part["part"] not in ("environment", "logs")]
    assert {part["status"] for part in here} <= {"ok", "skipped"}  # the rest is this machine's business
    with dead(place), orphaned(place), no_tmpdir(place):
        for _ in range(2):
            again = place.devsup("doctor", "--json")
            envelope = checked(again, "doctor")
            assert (again.code, envelope["error"]["code"]) == (14, "unhealthy")
            kinds = {one.partition(":")[0] for one in envelope["error"]["details"]["findings"]}
            assert {"server_dead", "process_orphaned", "tmpdir_unusable"} <= kinds
            assert envelope["error"]["hint"] == "devsup doctor --fix"
        told = place.devsup("doctor").out
        shown = [one for part in envelope["data"]["parts"] for one in part["findings"]]
        assert [one["id"] for one in shown if f"  fix: {one['fix']}" not in told] == []
        fixed = place.devsup("doctor", "--fix", "--json")
        envelope = checked(fixed, "doctor")
        assert fixed.code == 14  # what is no business of a program's is as it was
        left = {one.partition(":")[0] for one in envelope["error"]["details"]["findings"]}
        assert "tmpdir_unusable" in left
        assert not {"server_dead", "process_orphaned"} & left
        done = [note for note in envelope["notes"] if note.startswith("fixed ")]
        assert len(done) == 2
        assert any("dev_server_web" in note for note in done)


def test_the_hint_names_the_folder_of_the_call_once(place: Place) -> None:
    with unhealthy(place):
        wait_until(lambda: place.find("server_unhealthy"), 20)
        answer = place.devsup("-C", place.project, "doctor", "--json")
    fixes = [one["fix"] for part in answer.json["data"]["parts"] for one in part["findings"]]
    assert answer.error["hint"] in fixes
    assert answer.error["hint"].startswith(f"devsup -C {place.project} ")
    assert answer.error["hint"].count("-C") == 1


def test_limits_that_are_too_low_are_named(temporary: Path) -> None:
    """As the files of the kernel say; those of a test's own machine cannot be changed."""
    (temporary / "max_user_watches").write_text("8192\n")
    (temporary / "max_user_instances").write_text("64\n")
    assert [(one.id, one.fix) for one in environment.inotify(str(temporary))] == [
        ("inotify_watches", "sudo sysctl fs.inotify.max_user_watches=524288"),
        ("inotify_instances", "sudo sysctl fs.inotify.max_user_instances=1024"),
    ]
    (temporary / "max_user_watches").write_text("524288\n")
    (temporary / "max_user_instances").write_text("1024\n")
    assert environment.inotify(str(temporary)) == []
    assert environment.inotify(str(temporary / "nowhere")) == []


def test_the_manual_has_every_finding() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    known = {kind for part in PARTS.values() for kind in part.KINDS}
    told = set(re.findall(r"`([a-z_]+)`", text))
    assert known - told - {"lock_timeout", "lock_silent"} == set()
    assert {name.partition(" ")[0] for name in SITUATIONS} <= known | {"registry_unusable"}


def _has(part: Any, kind: str) -> bool:
    return any(one.id.partition(":")[0] == kind for one in part.findings)

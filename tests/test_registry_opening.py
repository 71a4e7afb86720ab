"""
The file itself: made once, never taken for what it is not, moved aside whole when it cannot be read.

Each fault here is a real one, except where a comment says which the system will not produce.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from devsup.errors import LockTimeout, RegistryUnusable
from devsup.models import Row, State
from devsup.paths import Home
from devsup.registry import Registry, locking, opening, schema
from tests.registry_child import log_of, make_claim, make_row, reserve, stranger
from tests.registry_support import PRELUDE, mounted, open_registry, race
from tests.support import ROOT, hear, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Spawn

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")

#: What a rebuild finds in these tests: one server that lives.
ALIVE = make_row("z9", "alive", generation=70, guard=stranger(1), leader=stranger(2), asked_port=3999)


@pytest.fixture
def registry(home: Path) -> Registry:
    return open_registry(home)


def with_living(home: Path, *rows: Row) -> Registry:
    """Return the registry of a home in which `rows` (or one server) are alive."""
    return Registry(Home(str(home)), rebuild=lambda: list(rows or (ALIVE,)))


def set_aside(home: Path) -> list[str]:
    """Return what was moved aside."""
    return sorted(str(path.relative_to(home / "set-aside")) for path in (home / "set-aside").glob("*/*"))


def dead_wal(home: Path, spawn: Spawn) -> None:
    """Leave the write-ahead log of a writer that was killed, with a row in it."""
    child = spawn(
        PRELUDE
        + """
with registry.connection():
    reserve(registry, make_row("w1", "in the wal"), port=3001)
    pause("written")
""",
        home,
        cwd=ROOT,
    )
    assert hear(child) == "written\n"
    child.kill()
    child.wait(10)
    assert (home / "registry.db-wal").stat().st_size > 0


# -- the first use ----------------------------------------------------------------------------------


def test_forty_processes_create_one_registry(temporary: Path, spawn: Spawn) -> None:
    """Each of 40 commands that come first at once finds the others' rows; 15 times over."""
    rounds = 15
    answers = race(
        spawn,
        40,
        f"""
for turn in range({rounds}):
    registry = Registry(Home(f"{{sys.argv[1]}}/{{turn}}"), rebuild=list)
    pause(reserve(registry, make_row(f"a{{number}}", f"s{{number}}")).generation)
    if registry.warnings:
        print(registry.warnings)
""",
        temporary,
        gate=rounds,
    )
    for turn in range(rounds):
        assert sorted(int(answer.split("\n")[turn]) for answer in answers) == list(range(1, 41))
        assert len(open_registry(temporary / str(turn)).rows()) == 40
        assert not (temporary / str(turn) / "set-aside").exists()
    assert all(len(answer.split("\n")) == rounds for answer in answers)


CREATE = (
    PRELUDE
    + """
def hook(event, args):
    if event == {event!r} and str(args[0]).endswith({path!r}):
        {hook}
sys.addaudithook(hook)
registry = Registry(Home(sys.argv[1]), rebuild=list)
print(reserve(registry, make_row(sys.argv[2], sys.argv[2])).generation)
"""
)


def test_who_comes_second_waits_for_a_whole_registry(home: Path, spawn: Spawn) -> None:
    """Held between the complete file under its other name and the rename."""
    hold = CREATE.format(hook="pause('here')", event="os.rename", path="registry.db.new")
    first = spawn(hold, home, "a1", cwd=ROOT)
    assert hear(first) == "here\n"
    second = spawn(
        f"{PRELUDE}pause('ready')\nprint(reserve(registry, make_row('b2', 'y')).generation)", home, cwd=ROOT
    )
    assert hear(second) == "ready\n"
    say(second)
    assert not (home / "registry.db").exists()
    assert second.poll() is None
    say(first)
    assert {hear(first), hear(second)} == {"1\n", "2\n"}
    assert not (home / "set-aside").exists()


def test_who_finds_the_work_done_waits_for_no_turn_at_it(home: Path) -> None:
    """Of a hundred that found no registry each would keep all others out, to see that there is one."""
    first, second = (locking.FileLock(Home(str(home)), patience=3.0) for _ in range(2))
    with closing(first), closing(second):
        first.exclude()
        (home / "registry.db").write_text("of the first")
        opening._replace(second, Home(str(home)), None, "it was gone", list, [])
        first.release()
        with closing(locking.FileLock(Home(str(home)), patience=0.0)) as third:
            assert third.exclude()  # the second has not even a part in it
    assert (home / "registry.db").read_text() == "of the first"


def test_a_reader_meanwhile_finds_nothing_or_waits(home: Path, spawn: Spawn, registry: Registry) -> None:
    hold = CREATE.format(hook="pause('here')", event="os.rename", path="registry.db.new")
    first = spawn(hold, home, "a1", cwd=ROOT)
    assert hear(first) == "here\n"
    reader = spawn(f"{PRELUDE}pause('ready')\nprint([row.id for row in registry.rows()])", home, cwd=ROOT)
    assert hear(reader) == "ready\n"
    say(reader)
    say(first)
    assert hear(reader) in {"[]\n", "['a1']\n"}
    assert hear(first) == "1\n"
    assert [row.id for row in registry.rows()] == ["a1"]


@pytest.mark.parametrize(
    ("event", "path"),
    [
        ("open", "registry.lock"),
        ("open", "registry.db.new"),
        ("sqlite3.connect", "registry.db.new?mode=rw"),
        ("os.rename", "registry.db.new"),
    ],
)
def test_a_crash_while_creating_is_forgotten(
    home: Path, spawn: Spawn, registry: Registry, event: str, path: str
) -> None:
    """Killed between two system calls, the first use leaves nothing that the second one minds."""
    crash = CREATE.format(hook="os._exit(73)", event=event, path=path)
    assert spawn(crash, home, "a1", cwd=ROOT).wait(20) == 73
    assert registry.rows() == []
    assert reserve(registry, make_row("b2")).generation == 1
    assert registry.warnings == []
    assert not (home / "registry.db.new").exists()
    assert not (home / "set-aside").exists()


def test_a_crash_between_rename_and_stamp_is_settled(home: Path, spawn: Spawn, registry: Registry) -> None:
    """The lock file does not speak of the new file yet; who comes next takes it in without a word."""
    code = (
        PRELUDE
        + """
from devsup.registry import locking
locking.FileLock.write_stamp = lambda *_: os._exit(73)
reserve(Registry(Home(sys.argv[1]), rebuild=list), make_row())
"""
    )
    assert spawn(code, home, cwd=ROOT).wait(20) == 73
    assert (home / "registry.db").exists()
    assert registry.rows() == []
    assert reserve(registry, make_row("b2")).generation == 1
    assert registry.warnings == []


# -- damage -----------------------------------------------------------------------------------------


def text_file(path: Path) -> None:
    path.write_text("dear diary\n" * 500)


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def all_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def somebody_elses(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
        connection.execute("CREATE TABLE servers (id TEXT)")
        connection.commit()


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def one_page(path: Path) -> None:
    os.truncate(path, 4096)


def not_even_a_page(path: Path) -> None:
    os.truncate(path, 100)


def overwritten(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def overwritten_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xa5" * 200)


def zeroed_pages(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(size - 4096))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def tables_dropped(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE runs")


def values_overwritten(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE servers SET description = '{'")
        connection.commit()


def numbers_overwritten(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE servers SET description = json_set(description, '$.strangers', '7 x')")
        connection.commit()


def text_that_is_none(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE runs SET url = CAST(x'ff00ff' AS TEXT)")
        connection.commit()


DAMAGES = [
    text_file,
    zero_bytes,
    all_zeros,
    somebody_elses,
    half,
    one_page,
    not_even_a_page,
    overwritten,
    overwritten_header,
    zeroed_pages,
    a_folder,
    tables_dropped,
]


def content(path: Path) -> object:
    """Return what makes a file (or folder) this one."""
    return sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("how", ["reading", "writing", "a guard"])
def test_what_cannot_be_read_is_moved_aside_whole_and_rebuilt(
    home: Path, registry: Registry, damage: Callable[[Path], None], how: str
) -> None:
    """It is evidence, and perhaps somebody's: never overwritten, and never taken for "nothing runs"."""
    for number in range(60):
        reserve(registry, make_row(f"a{number}", f"s{number}", reason="x" * 300), port=3000 + number)
    damage(home / "registry.db")
    damaged = content(home / "registry.db")
    found = with_living(home)
    if how == "reading":
        assert [row.id for row in found.rows()] == ["z9"]
    elif how == "writing":
        assert reserve(found, make_row("b2", "new")).generation > 70
    else:
        assert found.update("z9", 70, state=State.READY, event="ready") is True
    assert [name.split("/")[1] for name in set_aside(home)] == ["registry.db"]
    assert content(home / "set-aside" / set_aside(home)[0]) == damaged
    [warning] = found.warnings
    assert "\n" not in warning
    assert "set-aside" in warning
    assert "1 running server was found" in warning
    assert found.leases("net")[3999] == "z9"
    assert found.events()[0].type == "recovered"
    again = with_living(home)
    assert {row.id for row in again.rows()} >= {"z9"}
    assert again.warnings == []


@pytest.mark.parametrize("damage", [values_overwritten, numbers_overwritten, text_that_is_none])
@pytest.mark.parametrize(
    "ask", [lambda found: found.rows(), lambda found: found.row("a1")], ids=["a command", "a guard"]
)
def test_values_that_devsup_did_not_write_are_damage(
    home: Path, registry: Registry, damage: Callable[[Path], None], ask: Callable[[Registry], object]
) -> None:
    """The file is sound, what stands in it is not: a guess at the rest could signal a stranger."""
    reserve(registry, make_row())
    damage(home / "registry.db")
    found = with_living(home)
    assert ask(found) in ([ALIVE], None)
    assert found.rows() == [ALIVE]
    assert len(set_aside(home)) == 1


def test_damage_met_in_a_long_block_is_repaired_too(home: Path, registry: Registry) -> None:
    """A connection that is open stays on the file it opened: after the repair it is another one."""
    reserve(registry, make_row())
    found = with_living(home)
    with found.connection():
        assert [row.id for row in found.rows()] == ["a1"]
        with closing(sqlite3.connect(home / "registry.db")) as connection:
            connection.execute("UPDATE servers SET description = '{'")
            connection.commit()
        assert [row.id for row in found.rows()] == ["z9"]
        assert found.touch("z9")
    assert [row.id for row in open_registry(home).rows()] == ["z9"]


def test_many_that_find_the_damage_rebuild_once(home: Path, spawn: Spawn, registry: Registry) -> None:
    """Two repairs would move the first one's work aside."""
    reserve(registry, make_row())
    text_file(home / "registry.db")
    answers = race(
        spawn,
        12,
        """
from tests.registry_child import make_row
alive = make_row("z9", "alive", generation=70, guard=stranger(1))
found = Registry(Home(sys.argv[1]), rebuild=lambda: [alive])
row = reserve(found, make_row(f"a{number}", f"s{number}"))
print(row.generation, len(found.warnings))
""",
        home,
    )
    generations, warnings = zip(*(map(int, answer.split()) for answer in answers), strict=True)
    assert sorted(generations) == list(range(71, 83))
    assert sum(warnings) == 1
    assert len(open_registry(home).rows()) == 13
    assert len(set_aside(home)) == 1


def test_who_finds_the_damage_second_takes_the_first_ones_work(
    home: Path, spawn: Spawn, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held between seeing the damage and locking everybody out, while another process repairs it all."""
    reserve(registry, make_row())
    text_file(home / "registry.db")
    real = locking.FileLock.exclude
    helper = spawn(
        PRELUDE
        + """
pause("ready")
found = Registry(Home(sys.argv[1]), rebuild=lambda: [make_row("h1", "x", generation=9)])
print(reserve(found, make_row("b2", "y")).id, flush=True)
""",
        home,
        cwd=ROOT,
    )
    assert hear(helper) == "ready\n"

    def let_the_other_one_first(self: locking.FileLock, *, over: Callable[[], bool]) -> bool:
        monkeypatch.setattr(locking.FileLock, "exclude", real)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # as `exclude` begins
        say(helper)
        assert hear(helper) == "b2\n"
        return real(self, over=over)

    monkeypatch.setattr(locking.FileLock, "exclude", let_the_other_one_first)
    found = with_living(home)
    assert {row.id for row in found.rows()} == {"h1", "b2"}
    assert found.warnings == []
    assert len(set_aside(home)) == 1


#: Dies at the rename whose number is its second argument.
CRASH_ASIDE = (
    PRELUDE
    + """
left = [int(sys.argv[2])]
def hook(event, args):
    if event == "os.rename":
        left[0] -= 1
        if not left[0]:
            os._exit(73)
sys.addaudithook(hook)
Registry(Home(sys.argv[1]), rebuild=list).rows()
"""
)


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_a_crash_while_moving_aside_loses_nothing(
    home: Path, spawn: Spawn, registry: Registry, renames: int
) -> None:
    """Database, WAL and index go one after the other; killed before any of them, all is found again."""
    reserve(registry, make_row())
    dead_wal(home, spawn)
    wal = (home / "registry.db-wal").read_bytes()
    zero_bytes(home / "registry.db")
    assert spawn(CRASH_ASIDE, home, renames, cwd=ROOT).wait(20) == 73
    found = with_living(home)
    assert [row.id for row in found.rows()] == ["z9"]
    assert len(found.warnings) == 1
    assert sorted(name.split("/")[1] for name in set_aside(home)) == [
        "registry.db",
        "registry.db-shm",
        "registry.db-wal",
    ]
    [kept] = [name for name in set_aside(home) if name.endswith("-wal")]
    assert (home / "set-aside" / kept).read_bytes() == wal
    assert not (home / "registry.db-wal").exists()


def test_a_crash_while_moving_aside_leaves_no_database_without_its_wal(
    home: Path, temporary: Path, spawn: Spawn, registry: Registry
) -> None:
    """What is condemned together with a WAL may look sound without it: the database goes first."""
    reserve(registry, make_row("a1", "x"))
    dead_wal(home, spawn)
    other = open_registry(temporary / "other")
    reserve(other, make_row("o1", "y"))
    os.rename(other.home.registry, registry.home.registry)
    assert spawn(CRASH_ASIDE, home, 2, cwd=ROOT).wait(20) == 73
    assert [row.id for row in with_living(home).rows()] == ["z9"]
    assert len(set_aside(home)) == 3


def test_repairs_in_one_second_do_not_meet(home: Path) -> None:
    for _ in range(3):
        (home / "registry.db").write_text("no")
        assert [row.id for row in with_living(home).rows()] == ["z9"]
    assert len({name.split("/")[0] for name in set_aside(home)}) == 3


def test_what_comes_back_damaged_each_time_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, as for a disk that does not hold what was written: a rebuild that helps nothing must end."""
    found = with_living(home)
    monkeypatch.setattr(
        "devsup.registry.queries.row_from",
        lambda *_: (_ for _ in ()).throw(opening.Damaged("bits rot", (home / "registry.db").stat().st_ino)),
    )
    with pytest.raises(RegistryUnusable, match="bits rot"):
        found.rows()


# -- gone -------------------------------------------------------------------------------------------


def test_a_database_that_vanished_is_rebuilt(home: Path, registry: Registry) -> None:
    reserve(registry, make_row("a1", "alive"))
    (home / "registry.db").unlink()
    found = with_living(home)
    assert [row.id for row in found.rows()] == ["z9"]
    assert found.warnings == ["the registry could not be used (it was gone); 1 running server was found"]


def test_a_home_that_vanished_is_rebuilt_while_its_servers_live(temporary: Path) -> None:
    """`rm -rf` of the state folder: no trace on disk, yet something runs."""
    home = temporary / "gone"
    found = with_living(home)
    assert [row.id for row in found.rows()] == ["z9"]
    assert len(found.warnings) == 1
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_database_that_vanished_with_nothing_alive_says_so(home: Path, registry: Registry) -> None:
    reserve(registry, make_row())
    (home / "registry.db").unlink()
    assert registry.rows() == []
    assert registry.warnings == ["the registry could not be used (it was gone); no running server was found"]
    assert open_registry(home).rows() == []


def test_a_leftover_wal_never_gets_into_a_new_database(home: Path, spawn: Spawn, registry: Registry) -> None:
    """SQLite would play the old rows into the new file, and its integrity check would call that sound."""
    reserve(registry, make_row("a1", "x"))
    dead_wal(home, spawn)
    (home / "registry.db").unlink()
    found = with_living(home)
    assert [row.id for row in found.rows()] == ["z9"]
    assert [name.split("/")[1] for name in set_aside(home)] == ["registry.db-shm", "registry.db-wal"]


def test_a_database_put_beside_the_wal_of_another_is_not_believed(
    home: Path, temporary: Path, spawn: Spawn, registry: Registry
) -> None:
    """A backup restored by hand after a crash: the old WAL would speak through it."""
    reserve(registry, make_row("a1", "x"))
    dead_wal(home, spawn)
    other = open_registry(temporary / "other")
    reserve(other, make_row("o1", "y"))
    os.rename(other.home.registry, registry.home.registry)
    found = with_living(home)
    assert [row.id for row in found.rows()] == ["z9"]
    assert len(set_aside(home)) == 3
    assert "replaced" in found.warnings[0]


def test_a_database_put_back_learns_what_lives(home: Path, registry: Registry) -> None:
    """A backup knows the past; what was started since is added, and no number is given out twice."""
    reserve(registry, make_row("a1", "x"))
    old = (home / "registry.db").read_bytes()
    for number in range(9):
        reserve(registry, make_row(f"b{number}", f"y{number}"))
        registry.add_event("finding")
    last = registry.events()[-1].seq
    (home / "copy").write_bytes(old)  # another inode than that of the file it replaces
    os.rename(home / "copy", home / "registry.db")
    found = with_living(home, make_row("b3", "y3", generation=5), make_row("c1", "x", generation=8))
    rows = found.rows()
    assert [(row.id, row.generation) for row in rows] == [("c1", 8), ("b3", 5)]
    assert reserve(found, make_row("d1", "z")).generation > 10
    assert found.events()[-1].seq > last
    assert "replaced" in found.warnings[0]
    assert not (home / "set-aside").exists()


def test_a_database_written_over_by_an_older_copy_gives_no_generation_twice(
    home: Path, registry: Registry
) -> None:
    reserve(registry, make_row("a1", "x"))
    old = (home / "registry.db").read_bytes()
    for number in range(3):
        reserve(registry, make_row(f"b{number}", f"y{number}"))
    (home / "registry.db").write_bytes(old)
    assert reserve(registry, make_row("c1", "z")).generation == 5


def test_a_lock_file_that_vanished_is_made_again(home: Path, registry: Registry) -> None:
    row = reserve(registry, make_row())
    (home / "registry.lock").unlink()
    assert registry.rows() == [row]
    assert reserve(registry, make_row("b2", "y")).generation == 2
    assert registry.warnings == []


def test_a_lock_file_full_of_nonsense_is_made_again(home: Path, registry: Registry) -> None:
    row = reserve(registry, make_row())
    (home / "registry.lock").write_text("x" * 300)
    assert registry.rows() == [row]
    assert reserve(registry, make_row("b2", "y")).generation == 2


def test_generations_survive_the_loss_of_everything_but_the_lock_file(home: Path, registry: Registry) -> None:
    """A cursor into the log of generation 3 must never mean another server's log."""
    for number in range(3):
        reserve(registry, make_row(f"a{number}", f"s{number}"))
    (home / "registry.db").unlink()
    assert reserve(registry, make_row("b2", "x")).generation == 4


@pytest.mark.parametrize("left", ["job", "log", "marker"])
def test_generations_survive_the_loss_of_the_lock_file_too(home: Path, registry: Registry, left: str) -> None:
    if left == "job":
        (home / "servers").mkdir()
        (home / "servers" / "a1.json").write_text('{"id": "a1", "generation": 41}')
        (home / "servers" / "a2.json").write_text("half a fi")
    elif left == "log":
        (home / "logs" / "p-1").mkdir(parents=True)
        (home / "logs" / "p-1" / "dev_server_web.41.log").touch()
        (home / "logs" / "p-1" / "dev_server_web.guard.log").touch()
        (home / "logs" / "p-1" / "other.txt").touch()
    else:
        registry = with_living(home, ALIVE.replace(generation=41))
    assert reserve(registry, make_row("b2", "x")).generation == 42


def test_numbers_of_events_survive_a_rebuild(home: Path, registry: Registry) -> None:
    for _ in range(5):
        last = registry.add_event("finding")
    for _ in range(2):
        text_file(home / "registry.db")
        assert registry.add_event("finding") > last
        last = registry.events()[-1].seq


# -- schema -----------------------------------------------------------------------------------------


@pytest.fixture
def next_schema(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes this devsup the next version, which wants another column and another table."""

    def upgrade() -> None:
        monkeypatch.setattr(schema, "VERSION", 2)
        statements = ["ALTER TABLE runs ADD COLUMN mood TEXT", "CREATE TABLE moods (mood TEXT PRIMARY KEY)"]
        monkeypatch.setattr(schema, "MIGRATIONS", {1: statements})

    return upgrade


def test_an_older_schema_is_migrated(home: Path, registry: Registry, next_schema: Callable[[], None]) -> None:
    row = reserve(registry, make_row())
    next_schema()
    assert registry.rows() == [row]
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT mood FROM runs").fetchall() == [(None,)]
    assert registry.warnings == []


def test_a_guard_of_the_older_version_goes_on_writing(
    home: Path, registry: Registry, next_schema: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started before the upgrade, and is not restarted by it; all it does is in the frozen tables."""
    guard, leader = stranger(1), stranger(2)
    reserve(registry, make_row("a1", "x"), port=3000)
    with monkeypatch.context():
        next_schema()
        registry.rows()
    monkeypatch.setattr(schema, "VERSION", 1)
    assert registry.claim("a1", 1, guard)
    assert registry.record_child("a1", 1, leader, guard=guard)
    assert registry.update("a1", 1, state=State.READY, port=3000, event="ready")
    assert registry.row("a1") is not None
    assert registry.regenerate("a1", 1, log_of) is not None
    assert registry.claim_stop("a1", 2, make_claim(guard)) is not None
    assert registry.finish("a1", 2, state=State.STOPPED)
    for refused in (
        registry.rows,
        registry.snapshot,
        registry.events,
        lambda: reserve(registry, make_row("b2")),
        lambda: registry.withdraw("a1", 1),
        lambda: registry.dismiss("a1", 1),
    ):
        with pytest.raises(RegistryUnusable, match="schema 2") as caught:
            refused()
        assert caught.value.exit_code == 11
        assert caught.value.hint == "upgrade devsup"
    monkeypatch.setattr(schema, "VERSION", 2)
    assert [row.id for row in registry.ended(limit=9)] == ["a1", "a1"]
    assert not (home / "set-aside").exists()


def test_a_guard_does_not_move_away_what_it_cannot_read(home: Path, registry: Registry) -> None:
    """A state that a newer devsup has invented is no damage."""
    reserve(registry, make_row())
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.execute("UPDATE runs SET state = 'hibernating'")
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    with pytest.raises(RegistryUnusable) as caught:
        registry.row("a1")
    assert caught.value.hint == "upgrade devsup"
    assert not (home / "set-aside").exists()


def test_many_that_find_an_older_schema_migrate_once(home: Path, spawn: Spawn, registry: Registry) -> None:
    reserve(registry, make_row())
    answers = race(
        spawn,
        8,
        """
from devsup.registry import schema
schema.VERSION = 2
schema.MIGRATIONS = {1: ["CREATE TABLE moods (mood TEXT PRIMARY KEY)"]}
print(reserve(registry, make_row(f"b{number}", f"s{number}")).generation)
""",
        home,
    )
    assert sorted(map(int, answers)) == list(range(2, 10))


def test_a_crash_while_migrating_leaves_the_older_schema(
    home: Path, spawn: Spawn, registry: Registry
) -> None:
    row = reserve(registry, make_row())
    code = (
        PRELUDE
        + """
from devsup.registry import schema
schema.VERSION = 2
class Statements:
    def __iter__(self):
        yield "CREATE TABLE moods (mood TEXT PRIMARY KEY)"
        os._exit(73)
schema.MIGRATIONS = {1: Statements()}
registry.rows()
"""
    )
    assert spawn(code, home, cwd=ROOT).wait(20) == 73
    assert registry.rows() == [row]
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'moods'").fetchone() == (
            0,
        )


def test_migrating_waits_for_who_has_it_open(
    home: Path, spawn: Spawn, registry: Registry, next_schema: Callable[[], None]
) -> None:
    reserve(registry, make_row())
    code = "with registry.connection():\n    registry.rows()\n    pause('open')\n"
    child = spawn(PRELUDE + code, home, cwd=ROOT)
    assert hear(child) == "open\n"
    next_schema()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locking, "PATIENCE", 0.2)
        with pytest.raises(LockTimeout) as caught:
            registry.rows()
    assert caught.value.details["holder"] == {"pid": child.pid}
    assert f"process {child.pid}" in str(caught.value)
    child.communicate("go\n", timeout=20)
    assert len(registry.rows()) == 1


# -- places -----------------------------------------------------------------------------------------


def fill(disk: Path) -> None:
    """Leave not one free block."""
    descriptor = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while os.write(descriptor, bytes(4096)):
            pass
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - it is what the loop ends by
    finally:
        os.close(descriptor)


def test_a_full_disk_is_named_and_what_is_there_can_be_read(temporary: Path) -> None:
    """`stop` has to find its server on a disk that its log has just filled."""
    with mounted(temporary / "disk", "size=1m") as disk:
        registry = open_registry(disk / "home")
        row = reserve(registry, make_row())
        fill(disk)
        for change in (
            lambda: reserve(registry, make_row("b2", "y")),
            lambda: registry.touch("a1"),
            lambda: registry.finish("a1", 1, state=State.STOPPED),
        ):
            with pytest.raises(RegistryUnusable, match="no space is left") as caught:
                change()
            assert str(disk / "home") in str(caught.value)
        assert registry.rows() == [row]
        assert registry.snapshot().rows == [row]
        with registry.connection():
            assert registry.find(row.scope, row.project, row.session) == row
            with pytest.raises(RegistryUnusable, match="no space is left"):
                registry.touch("a1")
        assert registry.warnings == []
        (disk / "filler").unlink()
        assert registry.finish("a1", row.generation, state=State.STOPPED)
        assert registry.rows() == []


def test_a_full_disk_with_a_wal_can_be_read(temporary: Path, spawn: Spawn) -> None:
    """The last rows are in the log of a writer that was killed: nothing of it may be passed over."""
    with mounted(temporary / "disk", "size=1m") as disk:
        registry = open_registry(disk / "home")
        reserve(registry, make_row())
        dead_wal(disk / "home", spawn)
        (disk / "home" / "registry.db-shm").unlink()
        fill(disk)
        assert {row.id for row in registry.rows()} == {"a1", "w1"}
        (disk / "filler").unlink()
        assert {row.id for row in registry.rows()} == {"a1", "w1"}


def test_no_registry_is_made_on_a_full_disk(temporary: Path) -> None:
    with mounted(temporary / "disk", "size=64k") as disk:
        registry = open_registry(disk / "home")
        with pytest.raises(RegistryUnusable, match="no space is left") as caught:
            reserve(registry, make_row())
        assert str(disk / "home") in str(caught.value)


def test_a_damaged_registry_on_a_full_disk_is_not_nothing(temporary: Path) -> None:
    with mounted(temporary / "disk", "size=1m") as disk:
        home = disk / "home"
        reserve(open_registry(home), make_row())
        text_file(home / "registry.db")
        fill(disk)
        for _ in range(2):
            with pytest.raises(RegistryUnusable, match="no space is left"):
                with_living(home).rows()
        (disk / "filler").unlink()
        assert [row.id for row in with_living(home).rows()] == ["z9"]
        assert [name.split("/")[1] for name in set_aside(home)] == ["registry.db"]


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


@pytest.mark.parametrize("lock", ["with", "without"])
def test_a_read_only_disk_can_be_read(temporary: Path, lock: str) -> None:
    with mounted(temporary / "disk") as disk:
        registry = open_registry(disk / "home")
        row = reserve(registry, make_row())
        if lock == "without":
            (disk / "home" / "registry.lock").unlink()
        remount(disk, "ro")
        assert registry.rows() == [row]
        assert registry.snapshot().rows == [row]
        with pytest.raises(RegistryUnusable, match=r"readonly|read-only") as caught:
            registry.touch("a1")
        assert str(disk / "home") in str(caught.value)
        remount(disk, "rw")
        assert registry.touch("a1")


def test_a_read_only_disk_with_a_wal_can_be_read(temporary: Path, spawn: Spawn) -> None:
    with mounted(temporary / "disk") as disk:
        registry = open_registry(disk / "home")
        reserve(registry, make_row())
        dead_wal(disk / "home", spawn)
        remount(disk, "ro")
        assert {row.id for row in registry.rows()} == {"a1", "w1"}
        remount(disk, "rw")


def test_an_empty_read_only_disk_has_no_servers(temporary: Path) -> None:
    with mounted(temporary / "disk") as disk:
        (disk / "home").mkdir(mode=0o700)
        remount(disk, "ro")
        assert open_registry(disk / "home").rows() == []
        with pytest.raises(RegistryUnusable, match="read-only"):
            reserve(open_registry(disk / "home"), make_row())
        with pytest.raises(RegistryUnusable, match="read-only"):
            with_living(disk / "home").rows()


@pytest.mark.parametrize("damage", [text_file, zero_bytes, somebody_elses, half])
def test_damage_on_a_read_only_disk_is_an_error(temporary: Path, damage: Callable[[Path], None]) -> None:
    with mounted(temporary / "disk") as disk:
        reserve(open_registry(disk / "home"), make_row())
        damage(disk / "home" / "registry.db")
        remount(disk, "ro")
        with pytest.raises(RegistryUnusable, match="read-only"):
            with_living(disk / "home").rows()
        remount(disk, "rw")


@needs_root
@pytest.mark.parametrize("name", ["registry.db", "registry.lock"])
def test_a_file_of_somebody_else_is_refused(home: Path, registry: Registry, name: str, spawn: Spawn) -> None:
    reserve(registry, make_row())
    os.chown(home / name, 12345, 12345)
    if name == "registry.db":
        with pytest.raises(RegistryUnusable, match="belongs to user 12345"):
            registry.rows()
        assert (home / name).exists()
        return
    # Root may open anything: asked as an ordinary user whose folder it is.
    os.chown(home, 65534, 65534)
    os.chown(home / "registry.db", 65534, 65534)
    home.parent.chmod(0o755)
    code = """
import os, sys
from devsup.errors import RegistryUnusable
from tests.registry_child import make_row
from devsup.paths import Home
from devsup.registry import Registry
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    Registry(Home(sys.argv[1]), rebuild=list).rows()
except RegistryUnusable as error:
    print(error)
"""
    out, err = spawn(code, home, cwd=ROOT).communicate(timeout=20)
    assert "permission denied" in out, err


@pytest.mark.parametrize("name", ["registry.db", "registry.lock"])
def test_a_link_in_the_place_of_a_file_is_refused(
    home: Path, temporary: Path, registry: Registry, name: str
) -> None:
    """SQLite would follow it, and put its WAL beside the other end."""
    reserve(registry, make_row())
    os.rename(home / name, temporary / "elsewhere")
    (home / name).symlink_to(temporary / "elsewhere")
    with pytest.raises(RegistryUnusable):
        registry.rows()
    assert (temporary / "elsewhere").exists()


def test_a_folder_in_the_place_of_the_lock_is_refused(home: Path, registry: Registry) -> None:
    (home / "registry.lock").mkdir()
    with pytest.raises(RegistryUnusable, match=r"registry\.lock"):
        registry.rows()


def test_a_file_in_the_place_of_the_home_is_refused(temporary: Path) -> None:
    (temporary / "file").write_text("mine")
    registry = open_registry(temporary / "file")
    for call in (registry.rows, lambda: reserve(registry, make_row())):
        with pytest.raises(RegistryUnusable, match="is not a folder"):
            call()
    assert (temporary / "file").read_text() == "mine"


def test_a_file_that_others_could_read_is_closed(home: Path, registry: Registry) -> None:
    reserve(registry, make_row())
    (home / "registry.db").chmod(0o666)
    registry.rows()
    assert stat.S_IMODE((home / "registry.db").stat().st_mode) == 0o600


def test_without_write_ahead_logs_a_rollback_journal_does(
    home: Path, spawn: Spawn, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SQLite's own stand-in for a filesystem without shared memory: its locks are files there."""
    monkeypatch.setattr(opening, "uri", lambda path, options: f"file:{path}?{options}&vfs=unix-dotfile")
    row = reserve(registry, make_row())
    registry.add_event("finding")
    assert registry.rows() == [row]
    with registry.connection():
        for _ in range(20):
            registry.touch("a1")
    monkeypatch.undo()
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    answers = race(
        spawn,
        6,
        """
for turn in range(20):
    registry.add_event("finding")
    registry.rows()
""",
        home,
    )
    assert answers == [""] * 6
    assert len(registry.events()) == 121
    assert registry.warnings == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks_is_refused(
    home: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Simulated: no filesystem that can be mounted here lacks them."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RegistryUnusable, match="no file locks") as caught:
        reserve(registry, make_row())
    assert str(home) in str(caught.value)
    assert not (home / "registry.db").exists()


def test_a_stopped_holder_of_the_lock_is_named(
    home: Path, spawn: Spawn, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z in the middle of a repair."""
    reserve(registry, make_row())
    text_file(home / "registry.db")
    hold = (
        PRELUDE
        + """
sys.addaudithook(lambda event, args: pause("here") if event == "os.rename" else None)
Registry(Home(sys.argv[1]), rebuild=list).rows()
"""
    )
    child = spawn(hold, home, cwd=ROOT)
    assert hear(child) == "here\n"
    child.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(locking, "PATIENCE", 0.2)
    with pytest.raises(LockTimeout) as caught:
        registry.rows()
    assert caught.value.details["holder"] == {"pid": child.pid}
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("name", "limit"),
    [("RLIMIT_NOFILE", 3), ("RLIMIT_NOFILE", 4), ("RLIMIT_NOFILE", 5), ("RLIMIT_FSIZE", 1000)],
)
def test_a_limit_of_the_process_is_an_error_and_no_damage(
    home: Path, spawn: Spawn, registry: Registry, name: str, limit: int
) -> None:
    """No descriptor left, no byte more to write: what is there stays as it is."""
    row = reserve(registry, make_row())
    code = (
        PRELUDE
        + """
import resource
from devsup.errors import RegistryUnusable
limit = getattr(resource, sys.argv[2])
resource.setrlimit(limit, (int(sys.argv[3]), resource.getrlimit(limit)[1]))
try:
    registry.touch("a1")
except RegistryUnusable as error:
    print(error)
"""
    )
    out, err = spawn(code, home, name, limit, cwd=ROOT).communicate(timeout=20)
    assert str(home) in out, err
    assert registry.rows() == [row]
    assert registry.warnings == []
    assert not (home / "set-aside").exists()

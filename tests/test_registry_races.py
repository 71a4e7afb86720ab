"""
Many processes on one registry: each rule in a natural race, and with one process held at the worst point.

A forced race keeps one process inside its transaction, or between two system calls, until the test has seen
what the other one does meanwhile.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from devsup.errors import LockTimeout
from devsup.models import Row, State
from devsup.registry import PortLeased, Registry, SessionBusy
from tests.registry_child import make_claim, make_row, reserve, stranger
from tests.registry_support import PRELUDE, open_registry, race
from tests.support import ROOT, hear, say

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from devsup.registry.opening import Database
    from tests.support import Spawn

MANY = 12


@pytest.fixture
def registry(home: Path) -> Registry:
    return open_registry(home)


def ended(child: subprocess.Popen[str]) -> str:
    """Let `child` go on to its end and return what it printed."""
    out, err = child.communicate("go\n", timeout=30)
    assert child.returncode == 0, err
    return out.strip()


# -- reserve ----------------------------------------------------------------------------------------


def test_of_many_that_reserve_a_session_one_wins(home: Path, spawn: Spawn, registry: Registry) -> None:
    answers = race(
        spawn,
        MANY,
        """
try:
    print("won", reserve(registry, make_row(f"a{number}"), port=3000).id)
except SessionBusy as error:
    print("busy", error.row.id)
""",
        home,
    )
    [row] = registry.rows()
    assert Counter(answers) == {f"won {row.id}": 1, f"busy {row.id}": MANY - 1}
    assert registry.leases("net") == {3000: row.id}


IN_RESERVE = (
    PRELUDE
    + """
def log_of(generation):
    pause("inside")
    return "/log"

registry.reserve(make_row("a1", "x", folder="/p"), dead=[], limit=9, port=3000, log_of=log_of)
"""
)


@pytest.mark.parametrize(
    ("row", "refusal"),
    [(make_row("b2", "x"), "SessionBusy"), (make_row("b2", "y", folder="/p"), "FolderBusy")],
)
def test_who_reserves_second_waits_and_sees_the_first(
    home: Path, spawn: Spawn, registry: Registry, row: Row, refusal: str
) -> None:
    """Held between its checks and its commit, the first one has still won."""
    first = spawn(IN_RESERVE, home, cwd=ROOT)
    assert hear(first) == "inside\n"
    second = spawn(
        PRELUDE
        + f"""
pause("ready")
try:
    reserve(registry, make_row("b2", {row.session!r}, folder={row.folder!r}))
except (SessionBusy, FolderBusy) as error:
    print(type(error).__name__, error.row.id)
""",
        home,
        cwd=ROOT,
    )
    assert hear(second) == "ready\n"
    say(second)
    assert registry.rows() == []  # readers neither wait nor see what is not there yet
    assert second.poll() is None
    assert ended(first) == ""
    assert hear(second) == f"{refusal} a1\n"
    assert [one.id for one in registry.rows()] == ["a1"]


def test_of_many_that_lease_a_port_one_wins(home: Path, spawn: Spawn, registry: Registry) -> None:
    answers = race(
        spawn,
        MANY,
        """
try:
    print("won", reserve(registry, make_row(f"a{number}", f"s{number}"), port=3000).id)
except PortLeased as error:
    print("leased", error.row.id)
""",
        home,
    )
    [row] = registry.rows()
    assert Counter(answers) == {f"won {row.id}": 1, f"leased {row.id}": MANY - 1}


def test_who_leases_second_waits_and_sees_the_first(home: Path, spawn: Spawn, registry: Registry) -> None:
    first = spawn(IN_RESERVE, home, cwd=ROOT)
    assert hear(first) == "inside\n"
    second = spawn(
        PRELUDE
        + """
pause("ready")
try:
    reserve(registry, make_row("b2", "y"), port=3000)
except PortLeased as error:
    print("leased", error.row.id)
""",
        home,
        cwd=ROOT,
    )
    assert hear(second) == "ready\n"
    say(second)
    assert second.poll() is None
    ended(first)
    assert hear(second) == "leased a1\n"
    with pytest.raises(PortLeased):
        reserve(registry, make_row("c3", "z"), port=3000)


def test_generations_are_unique_over_processes(home: Path, spawn: Spawn) -> None:
    answers = race(
        spawn,
        8,
        """
for turn in range(25):
    row = reserve(registry, make_row(f"a{number}-{turn}", f"s{number}"))
    assert registry.withdraw(row.id, row.generation)
    print(row.generation)
""",
        home,
    )
    given = [int(one) for answer in answers for one in answer.split()]
    assert sorted(given) == list(range(1, 201))


# -- claim against withdraw -------------------------------------------------------------------------


def test_a_reservation_is_either_claimed_or_withdrawn(home: Path, spawn: Spawn, registry: Registry) -> None:
    """A guard that starts a server whose row was taken away would be the server that no row names."""
    for server in range(40):
        reserve(registry, make_row(f"a{server}", f"s{server}"))
    answers = race(
        spawn,
        4,
        """
won = []
for server in range(40):
    id, generation = f"a{server}", server + 1
    if number % 2:
        won.append(registry.claim(id, generation, stranger(number)))
    else:
        won.append(registry.withdraw(id, generation))
print("".join("x" if one else "." for one in won))
""",
        home,
    )
    assert all("".join(one).count("x") == 1 for one in zip(*answers, strict=True))
    claimed = {row.id for row in registry.rows()}
    assert claimed == {
        f"a{server}" for server in range(40) for number in (1, 3) if answers[number][server] == "x"
    }


HELD = (
    PRELUDE
    + """
def hold(body):
    def inside(db):
        done = body(db)
        pause("inside")
        return done
    print(registry._run(inside, write=True))

"""
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("frozen.claim(db, 'a1', 1, me, None)", "registry.withdraw('a1', 1)"),
        ("frozen.withdraw(db, 'a1', 1, None)", "registry.claim('a1', 1, me)"),
        (
            "frozen.claim_stop(db, 'a1', 1, make_claim(me), None) is not None",
            "registry.claim('a1', 1, me)",
        ),
        ("frozen.claim(db, 'a1', 1, stranger(7), None)", "registry.claim('a1', 1, me)"),
    ],
)
def test_who_comes_second_to_a_reservation_gets_nothing(
    home: Path, spawn: Spawn, registry: Registry, first: str, second: str
) -> None:
    reserve(registry, make_row("a1"))
    one = spawn(f"{HELD}hold(lambda db: {first})", home, cwd=ROOT)
    assert hear(one) == "inside\n"
    two = spawn(f"{PRELUDE}pause('ready')\nprint({second})", home, cwd=ROOT)
    assert hear(two) == "ready\n"
    say(two)
    assert two.poll() is None
    assert ended(one) == "True"
    assert hear(two) == "False\n"


def test_a_child_is_not_recorded_behind_a_stop(home: Path, spawn: Spawn, registry: Registry) -> None:
    """Held between the claim and its commit: the guard, which waits, must not get its child in."""
    reserve(registry, make_row("a1"))
    registry.claim("a1", 1, stranger(7))
    one = spawn(
        f"{HELD}hold(lambda db: frozen.claim_stop(db, 'a1', 1, make_claim(me), None))", home, cwd=ROOT
    )
    assert hear(one) == "inside\n"
    two = spawn(
        f"{PRELUDE}pause('ready')\nprint(registry.record_child('a1', 1, stranger(8), guard=stranger(7)))",
        home,
        cwd=ROOT,
    )
    assert hear(two) == "ready\n"
    say(two)
    ended(one)
    assert hear(two) == "False\n"


# -- claim_stop and finish --------------------------------------------------------------------------


def test_of_many_that_stop_a_server_one_wins(home: Path, spawn: Spawn, registry: Registry) -> None:
    reserve(registry, make_row("a1"))
    answers = race(
        spawn,
        MANY,
        """
claim = registry.claim_stop("a1", 1, make_claim(me))
print("won" if claim.by == me else "lost", claim.by.pid)
""",
        home,
    )
    found = registry.row("a1")
    assert found is not None
    assert found.stop is not None
    winner = found.stop.by.pid
    assert Counter(answers) == {f"won {winner}": 1, f"lost {winner}": MANY - 1}
    assert [event.type for event in registry.events()] == ["stopping"]


def test_who_claims_second_waits_and_hears_who_was_first(
    home: Path, spawn: Spawn, registry: Registry
) -> None:
    reserve(registry, make_row("a1"))
    one = spawn(
        f"{HELD}hold(lambda db: frozen.claim_stop(db, 'a1', 1, make_claim(me), None))", home, cwd=ROOT
    )
    assert hear(one) == "inside\n"
    two = spawn(
        f"{PRELUDE}pause('ready')\nprint(registry.claim_stop('a1', 1, make_claim(me)).by.pid)",
        home,
        cwd=ROOT,
    )
    assert hear(two) == "ready\n"
    say(two)
    assert two.poll() is None
    ended(one)
    assert hear(two) == f"{one.pid}\n"


def test_of_two_that_inherit_a_dead_claim_one_wins(home: Path, spawn: Spawn, registry: Registry) -> None:
    reserve(registry, make_row("a1"))
    registry.claim_stop("a1", 1, make_claim(stranger(7)))
    answers = race(
        spawn,
        MANY,
        """
claim = registry.claim_stop("a1", 1, make_claim(me), dead_holder=stranger(7))
print("won" if claim.by == me else "lost")
""",
        home,
    )
    assert Counter(answers) == {"won": 1, "lost": MANY - 1}


def test_one_end_is_recorded(home: Path, spawn: Spawn, registry: Registry) -> None:
    for server in range(30):
        reserve(registry, make_row(f"a{server}", f"s{server}"), port=3000 + server)
    answers = race(
        spawn,
        4,
        """
how = {"state": State.STOPPED, "keep": number == 0}
won = [registry.finish(f"a{server}", server + 1, **how) for server in range(30)]
print("".join("x" if one else "." for one in won))
""",
        home,
    )
    assert all("".join(one).count("x") == 1 for one in zip(*answers, strict=True))
    assert len(registry.rows()) == answers[0].count("x")
    assert len(registry.ended(limit=100)) == 30 - answers[0].count("x")
    assert registry.leases("net") == {}
    assert len([event for event in registry.events() if event.type == "stopped"]) == 30


def test_the_end_of_an_old_generation_comes_too_late(home: Path, spawn: Spawn, registry: Registry) -> None:
    """Held while it closes generation 1 and begins 2: the report about 1, which waits, must not delete 2."""
    reserve(registry, make_row("a1"), port=3000)
    one = spawn(
        f"{HELD}hold(lambda db: frozen.regenerate(db, 'a1', 1, log_of, None).generation)", home, cwd=ROOT
    )
    assert hear(one) == "inside\n"
    two = spawn(
        f"{PRELUDE}pause('ready')\nprint(registry.finish('a1', 1, state=State.CRASHED))", home, cwd=ROOT
    )
    assert hear(two) == "ready\n"
    say(two)
    assert two.poll() is None
    assert ended(one) == "2"
    assert hear(two) == "False\n"
    found = registry.row("a1")
    assert found is not None
    assert (found.generation, registry.leases("net")) == (2, {3000: "a1"})


# -- no lost update ---------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True], ids=["a connection each", "one connection"])
def test_no_update_is_lost(home: Path, spawn: Spawn, registry: Registry, *, held: bool) -> None:
    """8 processes add to one counter and to the events; both must have all of it."""
    answers = race(
        spawn,
        8,
        """
import time
def add(db):
    db.execute("UPDATE counters SET value = value + 1 WHERE name = 'generation'")

def work():
    for turn in range(50):
        registry._run(add, write=True)
        registry.add_event("finding", reason=f"{number}")

if sys.argv[3] == "True":
    with registry.connection():
        work()
else:
    work()
""",
        home,
        held,
    )
    assert answers == [""] * 8
    assert reserve(registry, make_row("a1")).generation == 401
    events = registry.events()
    assert [event.seq for event in events] == list(range(1, 401))
    assert Counter(event.reason for event in events) == {str(number): 50 for number in range(8)}


# -- kill -9 ----------------------------------------------------------------------------------------

WRITER = (
    PRELUDE
    + """
pause("ready")
turn = 0
while True:
    turn += 1
    row = make_row(f"a{me.pid}-{turn}", f"s{turn % 3}-{me.pid}")
    row = reserve(registry, row, port=me.pid * 10 + turn % 3)
    registry.claim(row.id, row.generation, me)
    registry.record_child(row.id, row.generation, stranger(5), guard=me)
    registry.update(row.id, row.generation, state=State.READY, event="ready")
    if turn % 3 == 0:
        registry.regenerate(row.id, row.generation, log_of)
        row = registry.row(row.id)
    assert registry.finish(row.id, row.generation, state=State.CRASHED, keep=turn % 2 == 0)
"""
)


def test_killing_writers_tears_nothing(home: Path, spawn: Spawn, registry: Registry) -> None:
    """SIGKILL at 40 random instants: every transaction is there as a whole or not at all."""
    deadline = time.monotonic() + 25
    for turn in range(20):
        writers = [spawn(WRITER, home, cwd=ROOT) for _ in range(2)]
        for writer in writers:
            assert hear(writer) == "ready\n"
        for writer in writers:
            say(writer)
        time.sleep(0.002 + 0.004 * turn)  # not to wait for something, but to be somewhere else each time
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            _, err = writer.communicate(timeout=10)
            assert writer.returncode == -signal.SIGKILL, err
        check(registry)
        if time.monotonic() > deadline:
            break
    assert registry.warnings == []


def check(registry: Registry) -> None:
    """Whatever was interrupted: the file is sound and the tables agree with each other."""

    def look(db: Database) -> None:
        def ask(statement: str) -> list[object]:
            return list(db.execute(statement).fetchall())

        assert ask("PRAGMA integrity_check") == [("ok",)]
        assert ask("SELECT id FROM runs EXCEPT SELECT id FROM servers") == []
        assert ask("SELECT id FROM servers EXCEPT SELECT id FROM runs") == []
        assert ask("SELECT id FROM leases EXCEPT SELECT id FROM runs WHERE live = 1") == []
        assert ask("SELECT id FROM runs WHERE live = 1 EXCEPT SELECT id FROM leases") == []
        assert ask("SELECT id FROM runs WHERE live = 0 AND ended_at IS NULL") == []
        # An end is told once, by an event of the same transaction.
        told = "SELECT server, generation FROM events WHERE type = 'crashed'"
        assert ask(f"{told} GROUP BY 1, 2 HAVING count(*) > 1") == []
        assert ask(f"SELECT id, generation FROM runs WHERE live = 0 EXCEPT {told}") == []

    registry._run(look, write=False)


def test_a_stopped_process_blocks_nobody_for_ever(
    home: Path, spawn: Spawn, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z inside a transaction: the others hear after some seconds, and can read all the time."""
    first = spawn(IN_RESERVE, home, cwd=ROOT)
    assert hear(first) == "inside\n"
    first.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("devsup.registry.opening.PATIENCE", 0.2)
    with pytest.raises(LockTimeout) as caught:
        reserve(registry, make_row("b2", "y"))
    assert caught.value.exit_code == 7
    assert registry.rows() == []
    first.send_signal(signal.SIGCONT)
    ended(first)
    with pytest.raises(SessionBusy):
        reserve(registry, make_row("b2", "x"))
    assert os.path.exists(registry.home.registry)


def test_the_end_of_a_process_ends_its_transaction(home: Path, spawn: Spawn, registry: Registry) -> None:
    first = spawn(IN_RESERVE, home, cwd=ROOT)
    assert hear(first) == "inside\n"
    first.kill()
    first.wait(10)
    assert reserve(registry, make_row("b2", "x"), port=3000).id == "b2"
    assert registry.rows(project="/p")[0].state is State.STARTING

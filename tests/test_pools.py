"""A number of a pool is lent to one at a time, and an owner finds its own again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsup import ports, system
from devsup.clock import now_ms
from devsup.paths import Home
from devsup.registry import PoolEmpty, Registry, pools
from devsup.registry.pools import Pool
from devsup.supervisor import preflight
from tests.racing import World, settle
from tests.registry_child import make_row, reserve
from tests.registry_support import open_registry, race
from tests.support import Spawn, hear, server_argv

if TYPE_CHECKING:
    from tests.support import Devsup, StandIn

SMALL = Pool("slots", "here", 1, 3)
LATER = 10**15


@pytest.fixture
def registry(home: Path) -> Registry:
    return open_registry(home)


# -- one caller ------------------------------------------------------------------------------------------


def test_an_owner_has_one_number_for_good(registry: Registry) -> None:
    """Over its own end, a reboot (nothing is left but the file) and everybody who came since."""
    own = registry.acquire(SMALL, "web /p", "h1", until=LATER)
    assert registry.assigned("slots", "web /p") == own
    assert registry.release(SMALL, own, "h1")
    others = {registry.acquire(SMALL, f"web /{name}", name, until=LATER) for name in ("a", "b")}
    assert own not in others
    assert Registry(registry.home).acquire(SMALL, "web /p", "h2", until=LATER) == own


def test_nobody_is_given_what_another_has_for_good(registry: Registry) -> None:
    """Both want the same number first: who came later does not get it while the other one is away."""
    first = next(pools.candidates(SMALL, "web /p"))
    rival = next(f"web /{n}" for n in range(100) if next(pools.candidates(SMALL, f"web /{n}")) == first)
    assert registry.acquire(SMALL, "web /p", "h1", until=LATER) == first
    registry.release(SMALL, first, "h1")
    assert registry.acquire(SMALL, rival, "h2", until=LATER) != first


def test_a_lent_number_is_nobody_elses(registry: Registry) -> None:
    """Only the holder renews or releases; a second holder of the same owner gets another number."""
    own = registry.acquire(SMALL, "web /p", "h1", until=LATER)
    assert registry.acquire(SMALL, "web /p", "h2", until=LATER) != own
    assert not registry.renew(SMALL, own, "h2", until=LATER)
    assert not registry.release(SMALL, own, "h2")
    assert registry.renew(SMALL, own, "h1", until=LATER + 1)
    assert registry.release(SMALL, own, "h1")
    assert not registry.release(SMALL, own, "h1")
    assert not registry.renew(SMALL, own, "h1", until=LATER)


def test_an_empty_pool_says_so_and_takes_from_who_was_gone_longest(registry: Registry) -> None:
    first = registry.acquire(SMALL, "a /p", "h1", until=LATER)
    second = registry.acquire(SMALL, "b /p", "h2", until=LATER)
    registry.acquire(SMALL, "c /p", "h3", until=LATER)
    with pytest.raises(PoolEmpty):
        registry.acquire(SMALL, "d /p", "h4", until=LATER)
    registry.release(SMALL, second, "h2")
    with pytest.raises(PoolEmpty):
        registry.acquire(SMALL, "d /p", "h4", taken=frozenset({second}), until=LATER)
    registry.release(SMALL, first, "h1")
    # All are assigned: the owner that was there first, and is gone, loses its own.
    assert registry.acquire(SMALL, "d /p", "h4", until=LATER) == first
    assert registry.assigned("slots", "a /p") is None
    assert [number for _, number in registry.owners("slots")] == [second, 6 - first - second, first]


def test_a_lease_is_over_at_its_time_or_with_its_server(registry: Registry) -> None:
    own = registry.acquire(SMALL, "web /p", "h1", until=now_ms() - 1)
    assert not registry.renew(SMALL, own, "h1", until=LATER)
    assert registry.acquire(SMALL, "web /p", "h2", until=None) == own
    # `h2` has no row: nobody holds it. `a1` has one, until that is withdrawn.
    row = reserve(registry, make_row("a1", "x"))
    assert registry.acquire(SMALL, "web /p", "a1", until=None) == own
    assert registry.acquire(SMALL, "web /p", "h3", until=LATER) != own
    registry.release(SMALL, registry.assigned("slots", "web /p") or 0, "h3")
    registry.withdraw("a1", row.generation)
    assert registry.acquire(Pool("slots", "here", own, 1), "web /p", "h4", until=LATER) == own


def test_spaces_are_apart_and_their_owners_are_not(registry: Registry) -> None:
    """Two containers may listen on one number each; the app has the same one in both."""
    there = SMALL.replace(space="there")
    assert registry.acquire(SMALL, "a /p", "h1", until=LATER) == registry.acquire(
        there, "a /p", "h2", until=LATER
    )


def test_a_number_that_is_no_more_in_the_pool_is_given_up(registry: Registry) -> None:
    """Somebody has moved the range of outgoing connections."""
    own = registry.acquire(SMALL, "a /p", "h1", until=now_ms() - 1)
    moved = SMALL.replace(never=frozenset({own}))
    assert registry.acquire(moved, "a /p", "h2", until=LATER) != own


def test_whose_project_is_gone_may_be_forgotten(registry: Registry) -> None:
    project = os.fsdecode(b"/p/caf\xe9")
    registry.acquire(SMALL, f"a {project}", "h1", until=LATER)
    [(owner, _)] = registry.owners("slots")
    assert registry.forget("slots", owner)
    assert registry.owners("slots") == []
    assert not registry.forget("slots", owner)


@settings(deadline=None, max_examples=60)
@given(st.text(), st.integers(1, 40), st.sets(st.integers(1, 40)))
def test_the_candidates_are_the_pool(owner: str, size: int, never: set[int]) -> None:
    pool = Pool("p", "s", 1, size, frozenset(never))
    found = list(pools.candidates(pool, owner))
    assert sorted(found) == [one for one in range(1, size + 1) if one not in never]
    assert found == list(pools.candidates(pool, owner))


def test_an_app_keeps_its_port(monkeypatch: pytest.MonkeyPatch, spawn: Spawn) -> None:
    """Known values: another release must not move everybody's bookmarks; nor does another process."""
    monkeypatch.setattr(ports, "ephemeral", lambda: (32768, 60999))
    names = ("web", "mobile", "docs")
    found = {name: next(pools.candidates(preflight.auto_ports(), f"{name} /home/me/shop")) for name in names}
    assert found == {"web": WEB, "mobile": MOBILE, "docs": DOCS}
    code = (
        "from devsup.registry.pools import Pool, candidates;"
        "print(next(candidates(Pool('ports', '', 10000, 22768), 'web /home/me/shop')))"
    )
    assert int(hear(spawn(code))) == WEB
    assert 10080 not in list(pools.candidates(preflight.auto_ports(), "x /p"))  # browsers refuse it


WEB, MOBILE, DOCS = 26928, 21790, 22326

# -- many callers ----------------------------------------------------------------------------------------

RACE = """
from devsup.registry.pools import Pool
pool = Pool("ports", "net", 10000, int(sys.argv[3]))
pause("loaded")
print(registry.acquire(pool, f"web /{number}", f"h{number}", until=10**15))
"""


def test_fifty_processes_acquire_at_once_and_no_two_get_the_same(spawn: Spawn, home: Path) -> None:
    """All want the first number of a pool with just enough of them."""
    open_registry(home)
    answers = race(spawn, 50, RACE.replace('f"web /{number}"', '"web " + "/" * number'), home, 50, gate=1)
    found = [int(answer.split()[-1]) for answer in answers]
    assert sorted(found) == list(range(10000, 10050))
    with pytest.raises(PoolEmpty):
        Registry(Home(str(home))).acquire(Pool("ports", "net", 10000, 50), "web /x", "hx", until=LATER)


# -- starts ----------------------------------------------------------------------------------------------


def auto(devsup: Devsup, project: Path, *words: object, app: str = "web") -> Any:
    """Start the app of ``project`` on its automatic port."""
    command = server_argv("web")
    return devsup("--json", "start", app, "--port", "auto", *words, "--", *command, cwd=project).data


def test_two_worktrees_have_two_ports_and_each_its_own_again(
    devsup: Devsup, temporary: Path, stand_in: StandIn
) -> None:
    """Also while the other one does not run, and after a stranger sat on it."""
    trees = [temporary / name for name in ("shop", "shop-fix")]
    for tree in trees:
        tree.mkdir()
        (tree / "devsup.toml").touch()
    first = auto(devsup, trees[0])["server"]["port"]
    devsup("stop", "web", cwd=trees[0])
    second = auto(devsup, trees[1])["server"]["port"]
    assert first != second
    assert first in ports.auto_range()
    again = auto(devsup, trees[0])["server"]
    assert again["port"] == first
    assert str(first) in again["command"] or again["url"].endswith(f":{first}")
    assert auto(devsup, trees[0])["reused"]
    registry = Registry(Home(os.environ["DEVSUP_HOME"]))
    assert registry.leases(system.net_namespace()) == {
        first: again["id"],
        second: registry.rows(project=str(trees[1]))[0].id,
    }
    devsup("stop", "--all", "--everywhere", cwd=trees[0])
    assert registry.leases(system.net_namespace()) == {}
    assert sorted(number for _, number in registry.owners("ports")) == sorted((first, second))
    # Who has the port now is not asked to go: the app moves, once.
    stranger = stand_in("web", "--port", first)
    moved = auto(devsup, trees[0])["server"]["port"]
    assert moved not in (first, second)
    stranger.kill()
    stranger.wait()
    devsup("stop", "web", cwd=trees[0])
    assert auto(devsup, trees[0])["server"]["port"] == moved
    devsup("stop", "--all", "--everywhere", cwd=trees[0])


def test_starts_at_once_of_many_apps_get_a_port_each(temporary: Path) -> None:
    """The look at listening sockets sees none of the others: only the transaction keeps them apart."""
    with World(temporary) as world:
        calls = [
            world.begin_with(
                ["start", f"app{n}", "--json", "--no-wait", "--port", "auto", "--", *world.command]
            )
            for n in range(8)
        ]
        found = [json.loads(call.end().out)["data"]["server"]["port"] for call in calls]
        assert len(set(found)) == 8
        world.devsup.cleanup()
        settle(world)

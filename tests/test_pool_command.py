"""`devsup pool`: the pools of this machine and of a fleet, from a shell."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor
from devsup.cli import complete
from devsup.pool import Pool
from devsup.pool._pool import names
from devsup.pool._sqlite import SqliteStore
from devsup.supervisor import pooling
from tests.support import ROOT, wait_until
from tests.test_contract import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.redis_support import RedisServer
    from tests.support import Devsup


def run(devsup: Devsup, *words: object, **options: Any) -> dict[str, Any]:
    """Return the checked envelope of `devsup pool WORDS --json`."""
    return checked(devsup("pool", *words, "--json", **options), "pool")


def owners(envelope: dict[str, Any]) -> dict[str | int, str | None]:
    """Return who has which item of the first pool."""
    return {one["item"]: one["owner"] for one in envelope["data"]["pools"][0]["items"]}


def test_a_pool_is_made_used_and_edited_from_a_shell(devsup: Devsup) -> None:
    """From nothing at all, which is left as it is by a look."""
    assert run(devsup)["data"]["pools"] == []
    for words in (["slots"], ["slots", "acquire", "--owner", "ci", "--ttl", "5"]):
        missing = run(devsup, *words)
        assert missing["error"]["code"] == "not_found"
    assert owners(run(devsup, "slots", "add", "a", 7, "b c")) == {"a": None, 7: None, "b c": None}
    assert run(devsup, "slots", "add", "a")["notes"] == ["the pool has `a` already"]
    lease = run(devsup, "slots", "acquire", "--owner", "ci", "--ttl", "5m")["data"]["lease"]
    assert (lease["item"], lease["owner"], lease["ttl"]) == ("a", "ci", 300)
    text = devsup("pool", "slots", "acquire", "--ttl", "5m", env={"DEVSUP_OWNER": "agent"})
    assert (text.code, text.out, text.err) == (0, "7\n", "")
    assert owners(run(devsup, "slots")) == {"a": "ci", 7: "agent", "b c": None}
    renewed = run(devsup, "slots", "renew", "a", "--owner", "ci", "--ttl", "2h")["data"]["lease"]
    assert (renewed["fencing"], renewed["expires_at"] > lease["expires_at"]) == (lease["fencing"], True)
    for words in (
        ["renew", "a", "--owner", "agent", "--ttl", "5"],
        ["release", "a", "--owner", "ci", "--fencing", lease["fencing"] - 1],
        ["release", "b c", "--owner", "ci"],
    ):
        assert run(devsup, "slots", *words)["error"]["code"] == "not_ours"
    refused = run(devsup, "slots", "free", 7)["error"]
    assert (refused["code"], refused["details"]["owner"]) == ("other_owner", "agent")
    assert refused["hint"] == "devsup pool slots free 7 --force"
    assert owners(run(devsup, "slots", "free", 7, "--force"))[7] is None
    assert run(devsup, "slots", "free", 7)["notes"] == ["nobody has `7`"]
    kept = run(devsup, "slots", "remove", "a", 7)
    assert "`ci` keeps `a`" in kept["notes"][0]
    assert owners(kept) == {"a": "ci", "b c": None}
    assert owners(run(devsup, "slots", "release", "a", "--owner", "ci")) == {"b c": None}
    run(devsup, "slots", "acquire", "--owner", "ci", "--ttl", 60)
    full = devsup("pool", "slots", "acquire", "--owner", "ci", "--ttl", 60)
    assert (full.code, full.out) == (10, "")
    assert "the next lease to end is that of `b c`" in full.err
    assert owners(run(devsup, "slots", "add", "a")) == {"b c": "ci", "a": None}
    assert devsup("pool").out.splitlines()[0].split() == ["POOL", "ITEM", "OWNER", "NUMBER", "UNTIL"]


@pytest.mark.parametrize(
    "words",
    [
        ["slots", "lend"],
        ["slots", "add"],
        ["slots", "acquire", "a", "--owner", "ci", "--ttl", "5"],
        ["slots", "acquire", "--ttl", "5"],
        ["slots", "acquire", "--owner", "ci"],
        ["slots", "acquire", "--owner", "ci", "--ttl", "soon"],
        ["slots", "acquire", "--owner", "ci", "--ttl", "0"],
        ["slots", "renew", "a", "b", "--owner", "ci", "--ttl", "5"],
        ["slots", "add", ""],
        [""],
    ],
)
def test_what_is_missing_or_wrong_is_said(devsup: Devsup, words: list[str]) -> None:
    """And nothing is changed."""
    run(devsup, "slots", "add", "a")
    assert run(devsup, *words)["error"]["code"] == "usage"
    assert owners(run(devsup)) == {"a": None}


def test_what_is_wrong_in_itself_is_said_though_redis_is_away(devsup: Devsup) -> None:
    away = {"DEVSUP_FLEET": "redis://127.0.0.1:1"}
    assert run(devsup, "slots", "lend", env=away)["error"]["code"] == "usage"
    assert run(devsup, "slots", env=away)["error"]["code"] == "fleet_unreachable"


def test_an_item_that_is_not_there_is_not_found(devsup: Devsup) -> None:
    run(devsup, "slots", "add", "a")
    for words in (["remove", "b"], ["free", "b"], ["release", "b", "--owner", "x"]):
        error = run(devsup, "slots", *words)["error"]
        assert (error["code"], error["hint"]) == ("not_found", "devsup pool slots")


def test_a_hint_means_the_pool_that_was_looked_at(devsup: Devsup) -> None:
    """Where a fleet has another one of the same name, too."""
    run(devsup, "slots", "add", "a")
    run(devsup, "slots", "acquire", "--owner", "ci", "--ttl", 60)
    for words, hint in (
        (["free", "a"], "devsup pool slots free a --force --here"),
        (["acquire", "--owner", "x", "--ttl", 60], "devsup pool slots --here"),
        (["free", "b"], "devsup pool slots --here"),
    ):
        assert run(devsup, "slots", *words, "--here")["error"]["hint"] == hint
    assert run(devsup, "others", "--here")["error"]["hint"] == "devsup pool --here"


def test_a_lease_made_after_the_look_is_not_taken_without_force(home: Path) -> None:
    with Pool("slots", ["a"], home=str(home)) as pool:
        edit = pooling._Edit(pool._core, pool._store, "free")
        [free] = pool.items()
        lease = pool.acquire("me", 60)
        assert edit._change("free", "a", free, force=False) == "nobody has `a`"
        pool.release(lease)


@pytest.mark.parametrize("action", ["add", "remove", "free"])
def test_a_pool_is_read_once_for_many_items(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """And once more for what there is to see then; what is named twice is done once."""
    with Pool("slots", ["a", "b", 3], home=str(home)) as pool:
        pool.acquire("me", 60)
    calls: list[str] = []
    call = SqliteStore.call

    def counted(store: SqliteStore, request: Any) -> Any:
        calls.append(request[0])
        return call(store, request)

    monkeypatch.setattr(SqliteStore, "call", counted)
    words = {"add": ["a", "c", "c", "4"], "remove": ["a", "b", "3"], "free": ["a", "a", "b"]}[action]
    found = Supervisor(str(project), str(home)).pool("slots", action, words, force=True)
    assert (calls.count("items"), calls.count(action)) == (2, {"add": 4, "remove": 3, "free": 2}[action])
    [shown] = found.pools
    assert [(one.item, one.owner) for one in shown.items] == {
        "add": [("a", "me"), ("b", None), (3, None), ("c", None), (4, None)],
        "remove": [("a", "me")],
        "free": [("a", None), ("b", None), (3, None)],
    }[action]
    assert (
        found.notes
        == {
            "add": ["the pool has `a` already", "the pool has `c` already"],
            "remove": [f"`me` keeps `a` until {shown.items[0].expires_at}"],
            "free": ["nobody has `a`", "nobody has `b`"],
        }[action]
    )


def test_a_fleet_has_pools_of_its_own(devsup: Devsup, shared_redis: RedisServer, home: Path) -> None:
    """The same that programs use by its url; `--here` are those of this machine."""
    url = shared_redis.url
    with Pool("boxes", ["x", "y"], url=url) as pool:
        lease = pool.acquire("program", 60)
        fleet = {"DEVSUP_FLEET": url}
        shown = run(devsup, env=fleet)
        assert shown["data"]["where"] == url
        assert owners(shown) == {"x": "program", "y": None}
        assert shown["data"]["pools"][0]["items"][0]["fencing"] == lease.fencing
        assert run(devsup, "boxes", "acquire", "--owner", "ci", "--ttl", 60, env=fleet)["data"]["lease"]
        assert owners(run(devsup, "boxes", "free", "x", "y", "--force", env=fleet)) == {"x": None, "y": None}
        assert owners(run(devsup, "boxes", "remove", "x", env=fleet)) == {"y": None}
        assert owners(run(devsup, "boxes", "add", "x", "z", env=fleet)) == {"y": None, "x": None, "z": None}
        assert run(devsup, "--here", env=fleet)["data"] == {"where": str(home), "pools": [], "lease": None}
        away = run(devsup, env={"DEVSUP_FLEET": "redis://:secret@127.0.0.1:1"})
        assert away["error"]["code"] == "fleet_unreachable"
        assert "secret" not in json.dumps(away)
    assert names(url=url) == ["boxes"]


def test_the_rules_that_the_manual_has_for_a_user_of_redis_allow_pools(
    devsup: Devsup, redis_server: RedisServer
) -> None:
    lines = (ROOT / "docs/fleet.md").read_text().splitlines()
    [rules] = [line.removeprefix("user ") for line in lines if line.startswith("user devsup on ")]
    redis_server.start(acl=(rules.replace("PASSWORD", "geheim"),))
    fleet = {"DEVSUP_FLEET": f"redis://devsup:geheim@127.0.0.1:{redis_server.port}"}
    assert owners(run(devsup, "slots", "add", "a", env=fleet)) == {"a": None}


def completed(devsup: Devsup, *words: str, env: Mapping[str, str] | None = None) -> str:
    """Return what a shell gets to complete after `devsup pool WORDS`."""
    environment = {
        "_DEVSUP_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": " ".join(("devsup", "pool", *words)) + " ",
    }
    return devsup(env={**environment, **(env or {})}).out


def test_a_shell_completes_pools_and_their_items(devsup: Devsup, shared_redis: RedisServer) -> None:
    fleet = {"DEVSUP_FLEET": shared_redis.url}
    for env in ({}, fleet):
        run(devsup, "slots", "add", "a", "b", env=env)
        # A Redis on a busy machine may take longer than a completion waits.
        wait_until(lambda env=env: "slots" in completed(devsup, env=env), 30)  # type: ignore[misc]
        assert "acquire" in completed(devsup, "slots", env=env)
        wait_until(lambda env=env: '"b"' in completed(devsup, "slots", "release", "a", env=env), 30)  # type: ignore[misc]
        assert '"a"' not in completed(devsup, "slots", "release", "a", env=env)
        assert "free" not in completed(devsup, "others", "release", env=env)
    run(devsup, "slots", "remove", "a", "b", env=fleet)
    assert '"b"' in completed(devsup, "--here", "slots", "release", env=fleet)
    assert names(url=shared_redis.url) == ["slots"]  # nothing is made by a look


def test_a_shell_does_not_wait_for_a_redis_that_hangs(
    redis_server: RedisServer, home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has pressed a key: what cannot be told within a moment is left out."""
    assert home.is_dir()
    with Pool("slots", ["a"], url=redis_server.start().url) as pool:
        pool.items()
    monkeypatch.chdir(project)
    monkeypatch.setenv("DEVSUP_FLEET", redis_server.url)
    context = SimpleNamespace(params={"name": "slots"}, parent=None)
    looks: dict[Callable[..., Any], Any] = {complete.pools: ["slots"], complete.pool_items: [("a", "free")]}
    for look, told in looks.items():
        wait_until(lambda look=look, told=told: look(context, "") == told, 30)  # type: ignore[misc]
    redis_server.pause()
    try:
        for look in looks:
            began = time.monotonic()
            assert look(context, "") == []
            assert time.monotonic() - began < 2.0  # for the client of programs that is one of several tries
    finally:
        redis_server.resume()

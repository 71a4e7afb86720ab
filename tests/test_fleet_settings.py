"""Which fleet a project is in, what this host and the project are called there; no Redis is needed."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from devsup.apps import configured, fleets, origin
from devsup.errors import ConfigInvalid, UsageError
from devsup.fleet import holding, settings
from devsup.fleet.membership import Membership
from devsup.models import Scope
from tests.apps_layouts import ENVIRON, git, lay, plan_of
from tests.support import server_argv

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup

# -- the repository's name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://github.com/me/shop.git", "github.com/me/shop"),
        ("https://me:ghp_secret@GitHub.com/me/shop/", "github.com/me/shop"),
        ("git@github.com:me/shop.git", "github.com/me/shop"),
        ("ssh://git@github.com:2222/me/shop.git", "github.com/me/shop"),
        ("ssh://[::1]:22/me/shop", "::1/me/shop"),
        ("host:shop", "host/shop"),
        ("https://host/a//b/.git", "host/a/b"),
        ("https://host/me/shop?token=x", "host/me/shop"),
        ("https://me:hun/ter2@host/me/shop", None),
        ("/srv/git/shop.git", None),
        ("../shop", None),
        ("./a:b", None),
        ("file:///srv/git/shop.git", None),
        ("https://host/", None),
        ("", None),
    ],
)
def test_a_repository_has_one_name_however_it_is_reached(address: str, name: str | None) -> None:
    assert origin.name_of(address) == name


def test_a_file_of_git_is_read_as_git_reads_it() -> None:
    text = (
        '[core]\n\tbare = false ; never\n[remote "a b"] url = "x \\"y\\" # z"  # comment\n'
        '[Branch "Main"]\n  remote = a \\\n b\n  flag\n[remote.old]\nURL=u\nbroken\n[\n'
    )
    assert origin.entries(text) == [
        ("core.bare", "false"),
        ("remote.a b.url", 'x "y" # z'),
        ("branch.Main.remote", "a  b"),
        ("branch.Main.flag", "true"),
        ("remote.old.url", "u"),
        ("remote.old.broken", "true"),
    ]


@pytest.mark.parametrize(
    ("remotes", "follows", "chosen"),
    [
        ({}, "", None),
        ({"fork": "f"}, "", "f"),
        ({"fork": "f", "origin": "o"}, "", "o"),
        ({"fork": "f", "origin": "o"}, "fork", "f"),
        ({"fork": "f", "other": "x"}, "", ["fork", "other"]),
        ({"fork": "f", "other": "x"}, ".", ["fork", "other"]),
        ({"fork": "f", "other": "x"}, "other", "x"),
    ],
)
def test_the_remote_that_the_branch_follows_counts_first(
    remotes: dict[str, str], follows: str, chosen: str | list[str] | None
) -> None:
    found = [(f"remote.{name}.url", url) for name, url in remotes.items()]
    found += [("branch.main.remote", follows)] if follows else []
    assert origin.choose(found, "main") == chosen


def test_a_worktree_and_a_folder_in_it_have_the_name_of_the_repository(temporary: Path) -> None:
    """Git itself wrote these files; what they include counts too."""
    main = lay(temporary / "shop", {"README": "", "apps/web/package.json": "{}"})
    git(main, "init", "-q", "-b", "main")
    assert origin.find(str(main)) == origin.Origin(None)
    git(main, "add", ".")
    git(main, "commit", "-q", "-m", "x")
    git(main, "worktree", "add", "-q", "../side")
    (main / "more").write_text('[remote "origin"]\n\turl = git@example.org:me/shop.git\n')
    git(main, "config", "include.path", "../more")
    assert origin.find(str(main)).name == "example.org/me/shop"
    assert origin.find(str(temporary / "side")).name == "example.org/me/shop"
    assert origin.find(str(main / "apps/web")).name == "example.org/me/shop#apps/web"
    assert origin.find(str(temporary)).name is None
    git(main, "config", "include.path", "../none")
    git(main, "remote", "add", "one", "https://h/1")
    git(main, "remote", "add", "two", "https://h/2")
    assert origin.find(str(main)) == origin.Origin(None, ["one", "two"])


# -- the fleet -------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_for_the_address_alone() -> None:
    said = {"url": "$REDIS", "name": "team", "ttl": 5.0, "on_lost": "stop"}
    environ = {"REDIS": "redis://r", "DEVSUP_FLEET": "redis://e", "DEVSUP_HOST": " box-a "}
    assert settings.read(said, environ) == settings.Settings(
        "redis://e", "DEVSUP_FLEET", "team", 5.0, "stop", "box-a"
    )
    del environ["DEVSUP_FLEET"]
    found = settings.read(said, environ)
    assert found is not None
    assert (found.url, found.source) == ("redis://r", "$REDIS")
    assert settings.read(said, {}) is None
    assert settings.why_not(said) == "`REDIS` is not set, which `[fleet]` names"
    assert settings.read({}, {}) is None
    plain = settings.read({"url": "unix:///x"}, {})
    assert plain is not None
    assert (plain.url, plain.name, plain.ttl, plain.on_lost) == ("unix:///x", "default", 30.0, "keep")
    assert plain.host


@pytest.mark.parametrize("name", ["a b", "a/b", "x" * 64, "a\x1b"])
def test_a_host_that_cannot_be_named_so_is_told(name: str) -> None:
    with pytest.raises(UsageError, match="DEVSUP_HOST cannot be a name"):
        settings.host({"DEVSUP_HOST": name})


def test_a_host_whose_system_has_no_name_has_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=" "))
    assert settings.host({}) == "localhost"


EXCLUSIVE = '[apps.web]\nexclusive = "fleet"\ncommand = "sleep 1"\n'


def _membership(folder: Path, text: str, environ: dict[str, str]) -> Membership | None:
    lay(folder, {"devsup.toml": text})
    config = configured.load(str(folder))
    plan = plan_of(folder, app="web", config=config, environ=ENVIRON | environ)
    found = fleets.membership(str(folder), plan, config, environ)
    return found[1] if found is not None else None


def test_an_exclusive_app_needs_a_fleet_and_a_project_that_has_a_name_there(temporary: Path) -> None:
    on = {"DEVSUP_FLEET": "redis://e", "DEVSUP_HOST": "box"}
    with pytest.raises(ConfigInvalid, match="line 2: `web` may run once in a fleet, and no fleet") as caught:
        _membership(temporary, EXCLUSIVE, {})
    assert "DEVSUP_FLEET=redis://" in str(caught.value.hint)
    with pytest.raises(ConfigInvalid, match="no name there: git names no other host's repository") as caught:
        _membership(temporary, EXCLUSIVE, on)
    assert 'project = "NAME"' in str(caught.value.hint)
    git(temporary, "init", "-q")
    for name in ("one", "two"):
        git(temporary, "remote", "add", name, f"https://h/{name}")
    with pytest.raises(ConfigInvalid, match="the remotes `one`, `two`, and follows none of them"):
        _membership(temporary, EXCLUSIVE, on)
    assert _membership(temporary, EXCLUSIVE.replace('exclusive = "fleet"', ""), on) == Membership(
        "default", "box", None
    )
    config = configured.load(str(temporary))
    plan = plan_of(temporary, app="web", config=config, environ=ENVIRON)
    told = fleets.membership(str(temporary), plan, config, on)
    assert told is not None
    (note,) = told[2]
    assert note.startswith("this project has no name in the fleet: git has the remotes `one`, `two`")
    assert note.endswith('add `project = "NAME"`, the same on every host')
    with pytest.raises(UsageError, match="DEVSUP_FLEET: the address of Redis cannot be read"):
        _membership(temporary, "[apps.web]\ncommand = 'x'\n", {"DEVSUP_FLEET": "http://hunter2"})
    named = _membership(temporary, f'project = "shop"\n{EXCLUSIVE}', on)
    assert named == Membership("default", "box", "shop")
    git(temporary, "remote", "remove", "two")
    found = _membership(temporary, EXCLUSIVE, on)
    assert found is not None
    assert found.project == "h/one"


def test_config_says_which_fleet_and_where_that_comes_from(devsup: Devsup, project: Path) -> None:
    (project / "devsup.toml").write_text(
        'project = "shop"\n[fleet]\nurl = "$CACHE"\nttl = "1m"\n'
        f'[apps.web]\ncommand = {json.dumps(server_argv("web"))}\nexclusive = "fleet"\n'
    )
    environ = {"CACHE": "redis://me:hunter2@cache/1", "DEVSUP_HOST": "box"}
    data = devsup("config", "--json", env=environ).data
    assert {key: (one["value"], one["source"]) for key, one in data["fleet"].items()} == {
        "url": ("redis://***@cache:6379/1", "environment"),
        "name": ("default", "default"),
        "ttl": (60.0, "file"),
        "on_lost": ("keep", "default"),
        "host": ("box", "environment"),
        "project": ("shop", "file"),
    }
    assert data["apps"]["web"]["exclusive"] == {"value": "fleet", "source": "file"}
    text = devsup("config", env=environ).out
    assert "[fleet]  ttl" in text
    assert "hunter2" not in text
    assert "[fleet]" not in devsup("config").out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hun/ter2@cache/1", "redis://***@cache:6379/1"),
        ("redis://cache?password=hun;ter2", "redis://***@cache:6379"),
        ("unix://:hun/ter2@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("ter2", "***"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_config_does_not_show_what_belongs_to_a_password(
    devsup: Devsup, url: str, shown: str, flags: list[str]
) -> None:
    said = devsup("config", *flags, env={"DEVSUP_FLEET": url})
    assert shown in said.out
    assert "ter2" not in said.out + said.err


# -- what a lease says -----------------------------------------------------------------------------------


def test_a_lease_says_who_has_it() -> None:
    here = holding.place(Scope("machine", "boot", "4026531836"), "/home/me/.local/state/devsup")
    assert here == "boot/4026531836/home/me/.local/state/devsup"
    held = holding.fields("box", here, owner=None, url=None, server="0123456789ab", generation=2)
    assert all(isinstance(value, str) for value in held.values())
    assert holding.read({**held, "token": "t", "fencing": "17"}) == holding.Holder(
        "box", here, None, None, "0123456789ab", 2, 17
    )
    assert holding.read({}) is None
    assert holding.read({**held, "fencing": "x"}) is None

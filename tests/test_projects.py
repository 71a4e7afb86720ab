"""`devsup config` and `devsup init`: what is in force and from where, and a first file from what is found."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from devsup.apps.presets import KINDS
from devsup.config.model import json_schema
from devsup.errors import ConfigInvalid
from tests.apps_layouts import EXPO, NEXT, Tree, lay, package
from tests.support import ROOT
from tests.test_config_files import FULL, WRONG, loaded
from tests.test_contract import checked

if TYPE_CHECKING:
    from tests.support import Devsup

SHOP: Tree = {
    "package.json": package(workspaces=["apps/*"], dev="turbo dev"),
    "apps/web/package.json": NEXT,
    "apps/admin/package.json": NEXT,
    "apps/mobile/package.json": EXPO,
    "tools/watch/package.json": package(dev="PORT=4800 node watch.js"),
}


def sources(devsup: Devsup, *words: object, **options: Any) -> dict[str, dict[str, tuple[Any, str]]]:
    """Return the value and the source of each key of each app."""
    data = checked(devsup("config", *words, "--json", **options), "config")["data"]
    assert list(data) == ["apps", "fleet"]
    return {
        app: {key: (one["value"], one["source"]) for key, one in keys.items()}
        for app, keys in data["apps"].items()
    }


def test_each_value_says_where_it_comes_from(devsup: Devsup, project: Path) -> None:
    lay(
        project,
        {
            **SHOP,
            "devsup.toml": '[defaults]\nttl = "1h"\n[apps.web]\nport = 3007\nenv = {TOKEN = "abc"}\n'
            "health = {restart = true}\n",
        },
    )
    found = sources(devsup)
    web = found["web"]
    assert web["port"] == (3007, "file")
    assert web["kind"] == ("next", "detected")
    assert web["dir"] == ("apps/web", "detected")
    assert web["command"][1] == "detected"
    assert web["ttl"] == (3600.0, "file")
    assert web["env.TOKEN"] == ("***", "file")
    assert web["ready.timeout"] == (45.0, "default")
    assert web["restart"] == ("no", "default")
    assert found["mobile"]["port"] == (8081, "default")
    assert (web["health.interval"], web["health.restart"]) == ((10.0, "default"), (True, "file"))
    assert found["mobile"]["health.interval"] == (None, "default")
    assert found["watch"]["port"] == (4800, "detected")
    environ = {"DEVSUP_WEB_PORT": "3008", "DEVSUP_IDLE_TIMEOUT": "15m"}
    flagged = sources(devsup, "web", "--port", 3009, "--env", "B=1", env=environ)
    assert list(flagged) == ["web"]
    assert flagged["web"]["port"] == (3009, "flag")
    assert flagged["web"]["env.B"] == ("***", "flag")
    assert flagged["web"]["idle_timeout"] == (900.0, "environment")
    assert sources(devsup, "web", env=environ)["web"]["port"] == (3008, "environment")


def test_the_table_shows_what_somebody_said(devsup: Devsup, project: Path) -> None:
    lay(project, {**SHOP, "devsup.toml": '[apps.web]\nttl = "90m"\nenv = {TOKEN = "hunter2secret"}\n'})
    answer = devsup("config")
    assert re.search(r"^web +ttl +file +1h30m$", answer.out, re.MULTILINE)
    assert re.search(r"^web +port +default +3000$", answer.out, re.MULTILINE)
    assert "hunter2" not in answer.out + answer.err
    assert f"configured by `{project / 'devsup.toml'}`" in answer.err
    wrong = devsup("config", env={"DEVSUP_TTL": "soon"})
    assert (wrong.code, "DEVSUP_TTL is `soon`" in wrong.err) == (2, True)


def test_init_writes_what_is_found_and_it_is_in_force(devsup: Devsup, temporary: Path) -> None:
    root = lay(temporary / "shop", {**SHOP, ".git/HEAD": "ref: x\n"})
    before = sources(devsup, cwd=root)
    shown = checked(devsup("init", "--print", "--json", cwd=root / "apps"), "init")["data"]
    assert (shown["written"], (root / "devsup.toml").exists()) == (False, False)
    assert devsup("init", "--print", cwd=root).out == shown["text"]
    written = devsup("init", cwd=root / "apps/web")
    assert (written.code, written.out) == (0, f"wrote {root}/devsup.toml\n")
    text = (root / "devsup.toml").read_text()
    assert text == shown["text"]
    said = tomllib.loads(text)
    assert said["project"] == "shop"
    assert said["apps"]["mobile"] == {"kind": "expo", "dir": "apps/mobile"}
    ports = {name: said["apps"][name].get("port") for name in ("web", "admin")}
    assert sorted(map(str, ports.values())) == ["None", "auto"]
    assert "`shop` is left out: it only runs the others (turbo dev)" in text
    after = sources(devsup, cwd=root)
    for app, keys in before.items():
        if app in after and app not in ports:
            assert {key: one[0] for key, one in keys.items()} == {
                key: one[0] for key, one in after[app].items()
            }
    assert "file" in {one[1] for one in after["mobile"].values()}


def test_an_app_that_cannot_be_run_keeps_no_other_out_of_the_file(devsup: Devsup, temporary: Path) -> None:
    bad = package("next", dev="next dev -p 99999")
    root = lay(temporary / "p", {".git/HEAD": "x", "a/package.json": bad, "b/package.json": EXPO})
    text = checked(devsup("init", "--print", "--json", cwd=root), "init")["data"]["text"]
    assert "is left out: `-p 99999` names no port" in text
    assert tomllib.loads(text)["apps"] == {"mobile": {"kind": "expo", "dir": "b"}}


def test_init_never_writes_over_a_file(devsup: Devsup, project: Path) -> None:
    (project / "devsup.toml").write_text("# mine\n")
    refused = devsup("init", "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert "`--force`" in refused.error["message"]
    assert (project / "devsup.toml").read_text() == "# mine\n"
    (project / "devsup.toml").write_text("[apps.web]\nprot = 1\n")
    assert devsup("init", "--print").code == 0
    assert devsup("init", "--force").code == 0
    assert "prot" not in (project / "devsup.toml").read_text()
    assert os.listdir(project) == ["devsup.toml"]


def test_init_makes_no_second_configuration(devsup: Devsup, temporary: Path) -> None:
    root = lay(temporary / "p", {".git/HEAD": "x", "package.json": {"devsup": {"project": "p"}}})
    refused = devsup("init", "--json", cwd=root)
    assert (refused.code, refused.error["hint"]) == (2, "devsup config")
    assert not (root / "devsup.toml").exists()


def test_of_many_inits_one_writes(devsup: Devsup, devsup_popen: Any, temporary: Path) -> None:
    root = lay(temporary / "p", {".git/HEAD": "x", "package.json": NEXT})
    children = [devsup_popen("init", "--json", cwd=root) for _ in range(4)]
    codes = sorted(child.wait(40) for child in children)
    assert codes == [0, 2, 2, 2]
    assert devsup("config", "--json", cwd=root).code == 0


# -- the schema for editors ----------------------------------------------------------------------------


def test_the_schema_agrees_with_the_check(devsup: Devsup, temporary: Path) -> None:
    """What an editor marks and what devsup refuses is the same, as far as a schema can say it."""
    printed = json.loads(devsup("config", "--schema").out)
    Draft202012Validator.check_schema(printed)
    validator = Draft202012Validator(printed)
    validator.validate(tomllib.loads(FULL))
    beyond = {
        "a circle",
        "an open quote",
        "no regular expression",
        "a contradiction",
        "no TOML",
        "a time too short",
    }
    for name, (text, *_) in WRONG.items():
        if name in beyond:
            continue
        assert not validator.is_valid(tomllib.loads(text)), name
        with pytest.raises(ConfigInvalid):
            loaded(temporary, text)


def test_the_shipped_schema_is_current() -> None:
    shipped = json.loads((ROOT / "devsup/config/devsup.schema.json").read_text())
    assert shipped == json_schema(tuple(KINDS)), "python -m devsup.cli.generate"

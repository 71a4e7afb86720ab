"""One folder is one project, whatever the locale of whoever calls: all of devsup, real servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devsup import filenames
from devsup.paths import Home, ensure_home
from devsup.registry import Registry
from devsup.tree import MARKER
from tests.support import free_port, hear, run_devsup, server_argv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support import Answer, Devsup, Spawn

#: No UTF-8 mode and no coercion: names that are not ASCII become texts of surrogates.
PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(params=["C", "latin-1"])
def other_locale(request: pytest.FixtureRequest, temporary: Path) -> Mapping[str, str]:
    """Give the variables of a locale that has other texts for the same bytes than UTF-8."""
    if request.param == "C":
        return PLAIN_C
    if shutil.which("localedef") is None:
        pytest.skip("no localedef to make a locale with")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(temporary / "en_US.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    if not (temporary / "en_US.ISO-8859-1").is_dir():
        pytest.skip(f"no latin-1 locale can be made here: {made.stderr.decode(errors='replace')}")
    return {"LOCPATH": str(temporary), "LC_ALL": "en_US.ISO-8859-1"}


@pytest.fixture(params=[b"caf\xc3\xa9", b"caf\xe9"], ids=["utf-8", "not utf-8"])
def folder(request: pytest.FixtureRequest, temporary: Path) -> str:
    """Give a project whose name is not ASCII."""
    path = os.path.join(os.fsencode(temporary), request.param)
    os.mkdir(path)
    os.close(os.open(os.path.join(path, b"devsup.toml"), os.O_CREAT | os.O_WRONLY))
    return os.fsdecode(path)


def run(*args: object, cwd: str, env: Mapping[str, str] | None = None) -> Answer:
    return run_devsup(*args, cwd=cwd, env={"PYTHONUTF8": "1"} if env is None else env)  # type: ignore[arg-type]


def test_callers_of_two_locales_share_a_server(
    devsup: Devsup, folder: str, other_locale: Mapping[str, str]
) -> None:
    """Start, list, status, logs and stop of one are about the server of the other."""
    del devsup  # its home, and its look round
    command = ("--port", free_port(), "--", *server_argv("web", "--port", free_port()))
    first = run("start", "web", "--json", *command, cwd=folder).data
    again = run("start", "web", "--json", *command, cwd=folder, env=other_locale).data
    assert (again["reused"], again["server"]["pid"]) == (True, first["server"]["pid"])
    for env in (None, other_locale):
        [server] = run("list", "--json", cwd=folder, env=env).data["servers"]
        assert (server["id"], server["project"]) == (first["server"]["id"], first["server"]["project"])
        assert run("logs", "web", "--json", cwd=folder, env=env).code == 0
    [result] = run("stop", "web", "--json", cwd=folder, env=other_locale).data["results"]
    assert (result["outcome"], result["port_free"]) == ("stopped", True)
    assert run("status", "web", "--json", cwd=folder).data["server"]["state"] == "stopped"
    assert run("list", "--json", "--everywhere", cwd=folder).data["servers"] == []


def test_a_server_of_another_locale_is_found_again_and_restarted(
    home: Path, devsup: Devsup, folder: str, other_locale: Mapping[str, str]
) -> None:
    """Its marker and its job file name the project by its bytes, and its guard reads both."""
    del devsup
    port = free_port()
    command = ("--port", port, "--", *server_argv("web", "--port", port))
    told = ("--env", "PYTHONIOENCODING=utf-8")  # the stand-in prints arrows
    first = run("start", "web", "--json", *told, *command, cwd=folder, env=other_locale).data["server"]
    environ = Path(f"/proc/{first['pid']}/environ").read_bytes()
    marker = environ.split(f"{MARKER}=".encode())[1]
    assert json.loads(marker.partition(b"\0")[0])["project"] == folder
    assert json.loads((home / "servers" / f"{first['id']}.json").read_text())["cwd"] == folder
    for name in ("registry.db", "registry.db-wal", "registry.db-shm"):
        (home / name).unlink(missing_ok=True)
    [found] = run("list", "--json", cwd=folder).data["servers"]
    assert (found["id"], found["pid"], found["project"]) == (first["id"], first["pid"], first["project"])
    again = run("restart", "web", "--json", cwd=folder).data["server"]
    assert (again["state"], again["port"]) == ("ready", port)
    [result] = run("stop", "web", "--json", cwd=folder, env=other_locale).data["results"]
    assert result["outcome"] == "stopped"


def test_monitors_of_two_locales_tell_a_finding_once(
    home: Path, other_locale: Mapping[str, str], spawn: Spawn
) -> None:
    """Its id may name a file: the one that has told of it and the one that sees it again mean the same."""
    ensure_home(Home(str(home)))
    Registry(Home(str(home))).add_event("lost")
    code = """
import os, sys
from devsup.paths import Home
from devsup.registry import Registry
from devsup.registry.findings import Open
seen = Open("broken:" + os.fsdecode(b"/caf\\xc3\\xa9"), "it is", None, None)
registry = Registry(Home(sys.argv[1]))
since = registry.event_page(after=None, limit=1, project=None).next_after
changed = registry.record_findings([seen], lambda _: True, since=since, by="test")
print(len(changed.opened), len(changed.closed), changed.open == [seen])
"""
    looks = [{"PYTHONUTF8": "1"}, other_locale, other_locale, {"PYTHONUTF8": "1"}]
    told = [hear(spawn(code, home, env=one)) for one in looks]
    assert told == ["1 0 True\n", *["0 0 True\n"] * 3]


def test_portable_text_is_made_of_the_bytes(spawn: Spawn) -> None:
    """What a process without UTF-8 writes is what one with it reads, and back."""
    code = """
import json, os, sys
from devsup import filenames
raw = [b"caf\\xc3\\xa9", b"caf\\xe9", b"plain"]
texts = [os.fsdecode(one) for one in raw]
kept = json.loads(json.dumps(filenames.portable_all({"a": texts, "b": 1})))
back = filenames.native_all(kept)
print(json.dumps([filenames.SAME, kept["a"], [os.fsencode(one) for one in back["a"]] == raw, back["b"]]))
"""
    expected = ["caf\xe9", "caf\udce9", "plain"]
    for env, same in ((PLAIN_C, False), ({"PYTHONUTF8": "1"}, True)):
        child = spawn(code, env=env)
        out, err = child.communicate(timeout=20)
        assert out, err
        assert json.loads(out) == [same, expected, True, 1]
    assert filenames.native(filenames.portable("\udce9")) == "\udce9"


def test_a_project_with_the_longest_of_names_works(devsup: Devsup, temporary: Path) -> None:
    """Its logs and locks are named after it, and no file name has more than 255 bytes."""
    folder = temporary / ("n" * 250)
    folder.mkdir()
    (folder / "devsup.toml").touch()
    command = ("--port", free_port(), "--", *server_argv("web", "--port", free_port()))
    server = devsup("start", "web", "--json", *command, cwd=folder).data["server"]
    assert server["project"] == str(folder)
    assert devsup("logs", "web", "--json", cwd=folder).data["text"]
    [result] = devsup("stop", "web", "--json", cwd=folder).data["results"]
    assert result["outcome"] == "stopped"

"""Who has which port, which worktree a server is of, and what dead servers leave behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, system
from devsup.apps import worktree
from devsup.cli import plain
from devsup.models import Row, ServerList
from devsup.paths import Home
from devsup.registry import Registry
from devsup.tree import MARKER, Marker
from tests.apps_layouts import git
from tests.cli_support import make_server
from tests.serving import LINUX_ONLY, Servers, next_app
from tests.support import (
    free_port,
    is_listening,
    processes_of,
    server_argv,
    wait_until,
    with_changes,
)
from tests.test_contract import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Devsup, StandIn


# -- ports -------------------------------------------------------------------------------------------------


@LINUX_ONLY
def test_ports_says_whose_each_is_and_what_a_start_would_meet(
    devsup: Devsup, project: Path, temporary: Path, stand_in: StandIn
) -> None:
    """Ours of every project, strangers of this one, and whoever has a port that an app here wants."""
    wanted, mine, elsewhere = (free_port() for _ in range(3))
    next_app(project, *server_argv("next_like"))
    config = '[apps.web]\nkind = "next"\nport = {}\n[apps.api]\ncommand = {}\nport = "auto"\n'
    (project / "devsup.toml").write_text(config.format(wanted, server_argv("web")))
    assert devsup("--json", "ports").data == {"ports": []}
    assert devsup("--json", "ports").notes == [
        f"`devsup start web` would use port {wanted}",
        "`devsup start api` would get a port of its own",
    ]
    other = temporary / "other"
    other.mkdir()
    (other / "devsup.toml").touch()
    server = devsup("--json", "start", "x", "--port", mine, "--", *server_argv("web"), cwd=other).data[
        "server"
    ]
    stranger = stand_in("web", "--port", wanted)
    stand_in("web", "--port", elsewhere, cwd=temporary)
    wait_until(lambda: is_listening(wanted) and is_listening(elsewhere))
    answer = devsup("--json", "ports")
    validate("ports", answer.data)
    found = {one["port"]: one for one in answer.data["ports"]}
    assert sorted(found) == sorted((wanted, mine))
    assert found[mine] | {"address": "", "pid": 0, "command": ""} == {
        "port": mine, "address": "", "pid": 0, "command": "", "cwd": str(other), "server": server["id"],
        "session": "dev_server_x", "project": str(other), "mine": True,
    }  # fmt: skip
    assert found[wanted] | {"address": "", "command": ""} == {
        "port": wanted, "address": "", "pid": stranger.pid, "command": "", "cwd": str(project),
        "server": None, "session": None, "project": str(project), "mine": False,
    }  # fmt: skip
    assert answer.notes[0].startswith(
        f"`devsup start web` wants port {wanted}, which is taken by pid {stranger.pid}"
    )
    assert answer.notes[0].endswith(f": devsup adopt {stranger.pid}")
    stranger.kill()
    stranger.wait()
    port = devsup("--json", "start", "api").data["server"]["port"]
    assert f"`devsup start api` finds its server, on port {port}" in devsup("--json", "ports").notes
    devsup("stop", "api")
    assert f"`devsup start api` would use port {port}" in devsup("--json", "ports").notes
    heading, line = devsup("ports").out.splitlines()
    assert heading.split() == ["PORT", "ADDRESS", "PID", "SESSION", "FOLDER", "COMMAND"]
    assert line.split()[0] == str(mine)
    devsup("stop", "--all", "--everywhere")


# -- worktrees ---------------------------------------------------------------------------------------------


@pytest.fixture
def repository(temporary: Path) -> Path:
    """Give a repository with a worktree of its own branch and one of a bare commit."""
    shop = temporary / "shop"
    shop.mkdir()
    git(shop, "init", "-q", "-b", "main")
    (shop / "devsup.toml").touch()
    git(shop, "add", ".")
    git(shop, "commit", "-qm", "x")
    git(shop, "worktree", "add", "-q", "-b", "fix/cart", "../a-fix")
    git(shop, "worktree", "add", "-q", "--detach", "../z-old")
    return shop


def test_git_s_files_say_which_worktree_and_branch(repository: Path, temporary: Path) -> None:
    """As git itself says it, from any folder inside."""
    (repository / "apps" / "web").mkdir(parents=True)
    (temporary / "a-fix" / "deep").mkdir()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    shared = str(repository / ".git")
    assert worktree.find(str(repository / "apps" / "web")) == worktree.Place(str(repository), shared, "main")
    fix = str(temporary / "a-fix")
    assert worktree.find(f"{fix}/deep") == worktree.Place(fix, shared, "fix/cart")
    old = str(temporary / "z-old")
    assert worktree.find(old) == worktree.Place(old, shared, commit[:7])


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere\n", "\0\xff", "gitdir:"])
def test_a_broken_git_file_is_no_error(temporary: Path, content: str) -> None:
    (temporary / ".git").write_text(content)
    assert worktree.find(str(temporary)).branch is None
    (temporary / ".git").unlink()
    os.mkfifo(temporary / ".git")
    assert worktree.find(str(temporary)).branch is None


def test_list_everywhere_shows_the_worktrees_of_a_repository_together(
    repository: Path, temporary: Path
) -> None:
    """A project that comes between them by its name does not part them."""
    other = temporary / "m-other"
    other.mkdir()
    folders = [temporary / "a-fix", other, repository, temporary / "z-old"]
    listed = ServerList([make_server(project=str(one), cwd=str(one)) for one in folders], [], [])
    heading, cells = plain.rows(listed, projects=True)
    assert heading[-2:] == ["PROJECT", "BRANCH"]
    shown = [(Path(one[-2]).name, one[-1]) for one in cells]
    assert [name for name, _ in shown if name != "m-other"] == ["a-fix", "shop", "z-old"]
    assert shown.index(("m-other", "-")) in (0, 3)
    assert dict(shown)["a-fix"] == "fix/cart"
    assert plain.rows(listed, projects=False)[0][-1] == "UPTIME"


# -- prune -------------------------------------------------------------------------------------------------


def kinds(answer: Any) -> dict[str, list[str]]:
    """Return what a prune names, by kind."""
    validate("prune", answer)
    found: dict[str, list[str]] = {}
    for one in answer["pruned"]:
        found.setdefault(one["kind"], []).append(one["what"])
    return found


def age(path: Path, days: int = 40) -> None:
    """Make a file or folder old."""
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def test_prune_of_a_home_that_is_in_order_finds_nothing(devsup: Devsup) -> None:
    assert devsup("--json", "prune").data == {"pruned": []}
    devsup("start", "web", "--port", free_port(), "--", *server_argv("web"))
    assert devsup("--json", "prune", "--orphans").data == {"pruned": []}
    assert devsup("--json", "list").data["servers"][0]["state"] == "ready"
    devsup("stop", "web")
    assert devsup("--json", "prune").data == {"pruned": []}


@LINUX_ONLY
def test_prune_removes_what_is_for_nobody_and_nothing_else(
    devsup: Devsup, project: Path, home: Path, temporary: Path
) -> None:
    """First said, then done; what lives, and what is young, stays."""
    gone = temporary / "gone"
    gone.mkdir()
    (gone / "devsup.toml").write_text('project = "x"')
    age(gone / "devsup.toml", 1)
    devsup("start", "x", "--port", "auto", "--", *server_argv("web"), cwd=gone)
    devsup("stop", "x", cwd=gone)
    shutil.rmtree(gone)
    state = Home(str(home))
    servers = Servers(devsup, home, project)
    live = devsup("--json", "start", "web", "--port", free_port(), "--", *server_argv("web")).data["server"]
    dead = devsup("--json", "start", "dead", "--port", free_port(), "--", *server_argv("web")).data["server"]
    for pid in (dead["guard_pid"], dead["pid"]):
        os.kill(pid, 9)
    wait_until(lambda: not is_listening(dead["port"]))
    folder = Path(live["log"]).parent
    surplus = [folder / f"old.{number}.log" for number in range(1, 6)]
    for one in surplus:
        one.write_text("x")
        Path(f"{one}.times").write_text("1.00 1\n")
    (home / "servers" / "ffffffffffff.json").write_text("{}")
    for name, old in (("20200101T000000Z", True), ("20990101T000000Z", False)):
        place = home / "set-aside" / name
        place.mkdir(parents=True)
        (place / "registry.db").write_text("x")
        for part in (place / "registry.db", place):
            age(part, 40 if old else 1)
    said = devsup("--json", "prune", "--dry-run").data
    found = kinds(said)
    assert found["row"] == [f"dev_server_dead of {project}"]
    assert found["job"] == [str(home / "servers" / "ffffffffffff.json")]
    assert found["log"] == [str(surplus[0]), str(surplus[1])] or sorted(found["log"]) == sorted(
        [str(surplus[0]), str(surplus[1]), str(Path(state.log(str(gone), "x", 0)).parent)]
    )
    assert len(found["port"]) == 1
    assert str(gone) in found["port"][0]
    assert found["registry"] == [str(home / "set-aside" / "20200101T000000Z")]
    assert found["config"] == [state.config(str(gone))]
    assert "orphan" not in found
    assert not any(one["done"] for one in said["pruned"])
    assert surplus[0].exists()
    done = devsup("--json", "prune").data
    assert kinds(done) == found
    assert all(one["done"] for one in done["pruned"])
    assert [one.exists() for one in surplus] == [False, False, True, True, True]
    assert [os.path.exists(f"{one}.times") for one in surplus] == [False, False, True, True, True]
    assert not Path(state.log(str(gone), "x", 0)).parent.exists()
    assert not os.path.exists(state.config(str(gone)))
    assert (home / "set-aside" / "20990101T000000Z").exists()
    assert Registry(state).owners("ports") == []
    assert [one["id"] for one in devsup("--json", "list").data["servers"]] == [live["id"]]
    assert devsup("--json", "status", "dead").data["server"]["state"] == "crashed"
    assert devsup("--json", "prune").data == {"pruned": []}
    servers.stop("web")


#: The id of a server that has no row: of its own for each run, as processes are found by it.
ORPHANED = os.urandom(6).hex()


@pytest.fixture
def orphan(home: Path, project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process with the marker of a server that has no row."""
    marker = Marker(str(home), str(project), "dev_server_lost", ORPHANED, 1)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1000)"],
        env=with_changes({MARKER: str(marker)}),
        start_new_session=True,
    )
    yield child
    child.kill()
    child.wait()


@LINUX_ONLY
def test_orphans_are_named_and_ended_only_where_that_is_asked_for(
    devsup: Devsup, orphan: subprocess.Popen[bytes]
) -> None:
    devsup("start", "web", "--port", free_port(), "--", *server_argv("web"))
    wait_until(lambda: system.environ(orphan.pid))
    for call in ("--dry-run", "--dry-run --orphans", ""):
        [one] = devsup("--json", "prune", *call.split()).data["pruned"]
        assert one["what"].startswith(f"pid {orphan.pid} (")
        assert (one["kind"], one["done"]) == ("orphan", False)
        assert orphan.poll() is None
    [one] = devsup("--json", "prune", "--orphans").data["pruned"]
    assert one["done"]
    assert orphan.wait(20) == -15
    assert devsup("--json", "list").data["servers"][0]["state"] == "ready"
    devsup("stop", "web")


@LINUX_ONLY
def test_a_call_from_inside_an_orphan_does_not_end_itself(devsup: Devsup, home: Path, project: Path) -> None:
    """A terminal that an error page's editor opened carries the marker for ever."""
    marker = Marker(str(home), str(project), "dev_server_lost", ORPHANED, 1)
    answer = devsup("--json", "prune", "--orphans", env={MARKER: str(marker)})
    assert answer.data == {"pruned": []}


@LINUX_ONLY
def test_an_orphan_that_got_its_row_back_is_left_alone(
    home: Path, project: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the signal a registry may be rebuilt, or the process adopted."""
    devsup = Supervisor(str(project), str(home))
    wait_until(lambda: processes_of(str(home)))
    real = Registry.row

    def row(self: Registry, server: str) -> Row | None:
        if server == ORPHANED:
            return Row(server, 1, "", "", "", "", None, "", "", [], "", None, 0)
        return real(self, server)

    monkeypatch.setattr(Registry, "row", row)
    [one] = devsup.prune(orphans=True).pruned
    assert not one.done
    assert orphan.poll() is None

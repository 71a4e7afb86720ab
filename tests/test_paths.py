"""Where the state lies, and which places are refused."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from devsup.errors import RegistryUnusable
from devsup.paths import Home, check_home, ensure_home, find_home
from tests.registry_support import mounted
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Spawn

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")


# -- where ------------------------------------------------------------------------------------------


def test_devsup_home_wins(temporary: Path) -> None:
    environ = {"DEVSUP_HOME": str(temporary / "x"), "XDG_STATE_HOME": "/state", "HOME": "/home/u"}
    assert find_home(environ).root == str(temporary / "x")


def test_a_tilde_in_devsup_home_is_the_home_folder(temporary: Path) -> None:
    assert find_home({"DEVSUP_HOME": "~/dv", "HOME": str(temporary)}).root == f"{temporary}/dv"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no XDG folders")
def test_the_xdg_state_folder_comes_next(temporary: Path) -> None:
    environ = {"XDG_STATE_HOME": str(temporary), "HOME": "/home/u"}
    assert find_home(environ).root == f"{temporary}/devsup"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no XDG folders")
@pytest.mark.parametrize("state", ["", "relative/state"])
def test_a_relative_xdg_folder_does_not_count(temporary: Path, state: str) -> None:
    environ = {"XDG_STATE_HOME": state, "HOME": str(temporary)}
    assert find_home(environ).root == f"{temporary}/.local/state/devsup"


def test_macos_has_its_own_place(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert find_home({"HOME": str(temporary)}).root == f"{temporary}/Library/Application Support/devsup"


@pytest.mark.parametrize(
    "environ",
    [{}, {"HOME": ""}, {"HOME": "relative"}, {"DEVSUP_HOME": "relative"}, {"DEVSUP_HOME": "~/x"}],
)
def test_without_a_place_the_error_names_the_variable(environ: dict[str, str]) -> None:
    """A daemon or a sandbox without HOME must hear what to do, not meet a traceback."""
    with pytest.raises(RegistryUnusable) as caught:
        find_home(environ)
    assert "DEVSUP_HOME" in f"{caught.value} {caught.value.hint}"
    assert caught.value.exit_code == 11


def test_two_spellings_of_a_folder_are_one_home(temporary: Path) -> None:
    """Markers of processes carry the home as text, so a link must not make a second one of it."""
    (temporary / "real").mkdir()
    (temporary / "link").symlink_to(temporary / "real")
    assert find_home({"DEVSUP_HOME": f"{temporary}/link/../link"}) == find_home(
        {"DEVSUP_HOME": f"{temporary}/real/"}
    )


def test_the_names_of_two_projects_and_sessions_do_not_meet() -> None:
    home = Home("/h")
    assert home.log("/a/web", "s", 3) != home.log("/b/web", "s", 3)
    assert home.log("/a/web", "s", 3).endswith("/s.3.log")
    assert home.guard_log("/a/web", "s").startswith("/h/logs/web-")
    assert home.log("/", "s", 1).startswith("/h/logs/root-")
    assert home.session_lock("k", "/a", "s") != home.session_lock("k", "/b", "s")
    assert home.session_lock("k", "/a", "s") != home.session_lock("j", "/a", "s")
    assert home.job("a1") == "/h/servers/a1.json"


@pytest.mark.parametrize("letter", ["x", "é", "\udce9"])
def test_a_project_with_the_longest_of_names_has_a_log_folder(letter: str) -> None:
    """A file name has 255 bytes at most, and the checksum of the whole path comes behind it."""
    home = Home("/h")
    name = letter * (250 // len(os.fsencode(letter)))
    folder = home.log(f"/p/{name}", "s", 1).split("/")[3]
    assert len(os.fsencode(folder)) < 120
    assert name.startswith(folder.rpartition("-")[0])
    assert folder != home.log(f"/q/{name}", "s", 1).split("/")[3]
    assert home.log(f"/p/{name[:40]}", "s", 1).startswith(f"/h/logs/{name[:40]}-")


# -- making it --------------------------------------------------------------------------------------


def test_a_new_home_is_closed_to_others(temporary: Path) -> None:
    home = Home(str(temporary / "deep" / "er" / "home"))
    assert check_home(home) is False
    ensure_home(home)
    ensure_home(home)
    assert check_home(home) is True
    for path in (home.root, home.servers, home.locks, home.logs, home.reports):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_a_missing_subfolder_is_made_again(temporary: Path) -> None:
    home = Home(str(temporary / "home"))
    ensure_home(home)
    os.rmdir(home.logs)
    ensure_home(home)
    assert os.path.isdir(home.logs)


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777, 0o770])
def test_a_home_of_ours_that_is_too_open_is_closed(temporary: Path, mode: int) -> None:
    root = temporary / "home"
    root.mkdir()
    root.chmod(mode)
    assert check_home(Home(str(root)))
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


# -- refusing it ------------------------------------------------------------------------------------


def refused(home: Home) -> RegistryUnusable:
    """Return the one error that reading and writing both give."""
    with pytest.raises(RegistryUnusable) as reading:
        check_home(home)
    with pytest.raises(RegistryUnusable) as writing:
        ensure_home(home)
    assert str(reading.value) == str(writing.value)
    assert writing.value.hint is not None
    assert "DEVSUP_HOME" in writing.value.hint
    return writing.value


def test_a_file_in_its_place_is_refused(temporary: Path) -> None:
    (temporary / "home").write_text("mine")
    assert "is not a folder" in str(refused(Home(str(temporary / "home"))))
    assert (temporary / "home").read_text() == "mine"


def test_a_file_in_the_place_of_a_subfolder_is_refused(temporary: Path) -> None:
    home = Home(str(temporary))
    (temporary / "logs").touch()
    with pytest.raises(RegistryUnusable, match="logs` is not a folder"):
        ensure_home(home)


def test_a_folder_below_a_file_is_refused(temporary: Path) -> None:
    (temporary / "file").touch()
    assert "not a directory" in str(refused(Home(str(temporary / "file" / "home"))))


@needs_root
def test_a_folder_of_somebody_else_is_refused(temporary: Path) -> None:
    """Whoever can write the registry decides what devsup signals."""
    root = temporary / "home"
    root.mkdir()
    os.chown(root, 12345, 12345)
    assert "belongs to user 12345" in str(refused(Home(str(root))))


@needs_root
def test_a_link_of_somebody_else_is_refused(temporary: Path) -> None:
    """The folder it leads to is ours today; tomorrow it leads elsewhere."""
    (temporary / "real").mkdir(mode=0o700)
    link = temporary / "home"
    link.symlink_to(temporary / "real")
    os.chown(link, 12345, 12345, follow_symlinks=False)
    refused(Home(str(link)))
    with pytest.raises(RegistryUnusable, match="symbolic link"):
        find_home({"DEVSUP_HOME": str(link)})


@needs_root
def test_a_link_of_ours_to_a_folder_of_somebody_else_is_refused(temporary: Path) -> None:
    (temporary / "real").mkdir(mode=0o700)
    os.chown(temporary / "real", 12345, 12345)
    (temporary / "home").symlink_to(temporary / "real")
    assert "belongs to user 12345" in str(refused(Home(str(temporary / "home"))))


def test_a_link_of_ours_to_a_folder_of_ours_is_fine(temporary: Path) -> None:
    """People keep their state on another disk."""
    (temporary / "real").mkdir(mode=0o755)
    (temporary / "home").symlink_to(temporary / "real")
    home = Home(str(temporary / "home"))
    ensure_home(home)
    assert check_home(home)
    assert stat.S_IMODE((temporary / "real").stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_names_the_variable(temporary: Path, spawn: Spawn) -> None:
    """Read as an ordinary user: root may write everywhere."""
    (temporary / "closed").mkdir(mode=0o755)
    temporary.chmod(0o755)
    code = """
import os, sys
from devsup.errors import RegistryUnusable
from devsup.paths import Home, ensure_home, find_home
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
else:
    os.chmod(sys.argv[1], 0o500)
try:
    ensure_home(Home(sys.argv[1] + "/below/home"))
except RegistryUnusable as error:
    print(error, "|", error.hint)
"""
    child = spawn(code, temporary / "closed", cwd=ROOT)
    out, err = child.communicate(timeout=20)
    assert "permission denied" in out, err
    assert "DEVSUP_HOME" in out


def test_a_read_only_disk_names_the_variable(temporary: Path) -> None:
    with mounted(temporary / "disk", "ro") as disk:
        home = Home(str(disk / "home"))
        assert check_home(home) is False
        with pytest.raises(RegistryUnusable, match="read-only") as caught:
            ensure_home(home)
    assert "DEVSUP_HOME" in str(caught.value.hint)


def test_many_make_it_at_once(temporary: Path, spawn: Spawn) -> None:
    code = """
import sys
from devsup.paths import Home, ensure_home
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    ensure_home(Home(f"{sys.argv[1]}/{number}/home"))
"""
    children = [spawn(code, temporary, cwd=ROOT) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        _, err = child.communicate("go\n", timeout=30)
        assert child.returncode == 0, err

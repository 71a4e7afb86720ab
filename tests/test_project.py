"""Does the repository hold what it promises to those who clone it?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import devsup
from devsup import errors
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKS = [
    ROOT / folder / "package-lock.json"
    for folder in ("examples/web", "examples/mobile", "tests/fixtures/next15")
]


def tracked() -> list[Path]:
    """Return the files of the repository; outside of a clone those tests are skipped."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text()
        except UnicodeDecodeError:
            continue


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_lock_files_pin_every_package_and_name_no_registry(lock: Path) -> None:
    """A lock that names a host fails wherever packages come from elsewhere."""
    packages = json.loads(lock.read_text())["packages"]
    assert "resolved" not in lock.read_text()
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []
    assert "omit-lockfile-registry-resolved=true" in (lock.parent / ".npmrc").read_text()


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    # Put together here, so that this file is not what it looks for.
    hosts = ["registry." + "npmjs", "pypi." + "org", "files." + "pythonhosted"]
    folders = re.compile(r"(?<![\w.}~])/(?:root|home/(?!me/)\w+|Users/\w+|work)/\w")
    for path, text in texts():
        assert [host for host in hosts if host in text] == [], path
        assert folders.findall(text) == [], path


def test_no_merge_or_debugging_leftovers() -> None:
    for path, text in texts():
        if path.suffix == ".py":
            assert "breakpoint" + "()" not in text, path
        assert "\n<<<<<<" + "< " not in text, path


def test_the_clock_that_goes_on_while_the_machine_sleeps_is_chosen_once() -> None:
    """Two leases that count by two clocks would be over at two times."""
    modules = (ROOT / "devsup").rglob("*.py")
    assert [path.name for path in modules if "CLOCK_MONOTONIC" in path.read_text()] == ["clock.py"]


def error_classes() -> list[type[errors.DevsupError]]:
    found, todo = [], [errors.DevsupError]
    while todo:
        found += todo
        todo = [sub for one in todo for sub in one.__subclasses__() if sub.__module__ == errors.__name__]
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/contract.md"])
def test_the_page_lists_every_exit_code(page: str) -> None:
    """Scripts are written from this table."""
    expected: dict[int, tuple[set[str], bool]] = {}
    for one in error_classes():
        codes, retryable = expected.setdefault(one.exit_code, (set(), one.retryable))
        assert retryable is one.retryable, f"{one} and others of exit {one.exit_code} disagree"
        codes.add(one.code)
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (yes|) ?\|$", (ROOT / page).read_text(), re.MULTILINE)
    table = {
        int(exit_code): (set(re.findall(r"`(\w+)`", codes)), again == "yes")
        for exit_code, codes, again in rows
    }
    assert table.pop(0) == (set(), False)
    assert table == expected


def test_the_readme_lists_every_command() -> None:
    from devsup.cli.grammar import VERBS

    documented = re.findall(r"^\| `([\w-]+)[ `]", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(VERBS)


def test_the_readme_shows_flags_that_exist() -> None:
    from devsup.cli.grammar import VERBS

    for line in (ROOT / "README.md").read_text().splitlines():
        if (row := re.match(r"\| `([\w-]+)[ `]", line)) is not None:
            options = VERBS[row[1]][0]
            assert [flag for flag in re.findall(r"`(--?[a-z-]+)", line) if flag not in options] == [], line


def test_the_readme_shows_the_envelope() -> None:
    (sample,) = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert list(json.loads(sample)) == ["schema_version", "ok", "data", "error", "notes"]


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", devsup.__version__)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench"])
def test_make_knows_what_the_readme_tells(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_moved_or_half_made_environment_is_made_again(temporary: Path) -> None:
    """A virtual environment names its own folder, so the note of a finished one does too."""
    shutil.copy(ROOT / "Makefile", temporary)
    shutil.copy(ROOT / "pyproject.toml", temporary)

    def plan() -> str:
        argv = ["make", "-n", "python"]
        return subprocess.run(argv, cwd=temporary, capture_output=True, text=True, check=True).stdout

    assert "-m venv" in plan()
    note = temporary / ".venv" / ".installed"
    note.parent.mkdir()
    note.write_text(f"{temporary}\n")
    assert "-m venv" not in plan()
    note.write_text("/elsewhere\n")
    assert "-m venv" in plan()


def test_the_ci_runs_what_a_person_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash")
    assert script.read_text().endswith("make test\n")


@pytest.mark.parametrize(
    ("command", "code", "shown"), [("echo seen", 0, False), ("echo seen; exit 3", 3, True)]
)
def test_a_step_is_quiet_unless_it_fails(command: str, code: int, *, shown: bool) -> None:
    argv = [str(ROOT / "scripts" / "step"), "Doing it", "sh", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code
    assert "Doing it" in done.stdout
    assert ("\nseen\n" in f"\n{done.stderr}") is shown


def test_a_missing_python_is_named() -> None:
    """The first thing a stranger meets must say what to do."""
    done = subprocess.run(
        [ROOT / "scripts" / "python"],
        env={"PATH": os.environ["PATH"], "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "hint:" in done.stderr

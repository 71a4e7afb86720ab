"""A shell completes verbs, flags, apps and servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, free_port, server_argv, with_changes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup

#: Does what a shell does at a Tab: fills the variables of programmable completion and asks the function.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
_devsup_completion devsup
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def path(temporary: Path) -> str:
    """Return a PATH with a `devsup` on it, as an installation gives it."""
    folder = temporary / "bin"
    folder.mkdir()
    script = folder / "devsup"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom devsup.__main__ import main\nsys.exit(main())\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def bash(path: str, cwd: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of ``words``."""
    argv = ["bash", "--norc", "-c", BASH, "bash", str(ROOT / "completions" / "devsup.bash"), "devsup", *words]
    done = subprocess.run(
        argv,
        env=with_changes({"PATH": path}),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


@needs_bash
def test_the_installed_script_is_the_shipped_one(temporary: Path, project: Path) -> None:
    """`devsup --install-completion` needs nothing but the package."""
    for flag in ("--show-completion", "--install-completion"):
        done = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -m devsup {flag}; exit $?'],
            env=with_changes({"HOME": str(temporary)}),
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
    shipped = (ROOT / "completions" / "devsup.bash").read_text()
    assert (temporary / ".bash_completions" / "devsup.sh").read_text().strip() == shipped.strip()
    assert "installed in" in done.stdout


@needs_bash
def test_bash_completes_verbs_and_flags(path: str, project: Path) -> None:
    assert bash(path, project, "st") == ["start", "stop", "status"]
    assert "ls" not in bash(path, project, "")
    assert "--port" in bash(path, project, "start", "--")
    assert bash(path, project, "start", "--port", "a") == ["auto"]
    assert "--json" in bash(path, project, "--")


@needs_bash
def test_bash_completes_apps_and_servers(path: str, project: Path, devsup: Devsup) -> None:
    """In an empty project there is nothing to offer, and that is no error."""
    assert bash(path, project, "stop", "") == []
    (project / "shop").mkdir()
    (project / "shop" / "package.json").write_text(
        '{"dependencies": {"next": "16"}, "scripts": {"dev": "next dev"}}'
    )
    assert bash(path, project, "start", "") == ["web"]
    pid = str(
        devsup("start", "api", "--json", "--", *server_argv("web", "--port", free_port())).data["server"][
            "pid"
        ]
    )
    assert bash(path, project, "stop", "") == ["api"]
    assert bash(path, project, "logs", "d") == ["dev_server_api"]
    assert bash(path, project, "status", pid[0]) == [pid]
    assert bash(path, project, "stop", "api", "a") == []
    assert bash(path, project.parent, "-C", "project", "url", "a") == ["api"]
    assert bash(path, project.parent, "url", "-C", "project", "a") == ["api"]
    assert bash(path, project, "start", "a") == ["api"]
    assert devsup("stop", "api").code == 0


def test_completion_in_a_broken_home_says_nothing(project: Path, temporary: Path) -> None:
    """An error would be typed into somebody's command line."""
    (temporary / "file").touch()
    for shell, variables in (
        ("bash", {"COMP_WORDS": "devsup\nstop\n", "COMP_CWORD": "2"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "devsup stop ", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ):
        changes = {
            "_DEVSUP_COMPLETE": f"complete_{shell}",
            "DEVSUP_HOME": str(temporary / "file"),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-m", "devsup"],
            env=with_changes(changes),
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout.strip(), done.stderr) == ("", "")


#: As above; zsh's own completion system is stood in for by functions that print what they are told.
ZSH = """
compdef() { :; }
_arguments() { print -r -- "$@"; }
_files() { print files; }
source "$1"; shift
words=("$@"); CURRENT=$#
_devsup_completion
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_completes(path: str, project: Path) -> None:
    script = str(ROOT / "completions" / "devsup.zsh")

    def zsh(*words: str) -> str:
        argv = ["zsh", "-f", "-c", ZSH, "zsh", script, "devsup", *words]
        return subprocess.run(
            argv, env=with_changes({"PATH": path}), cwd=project, capture_output=True, text=True, check=True
        ).stdout

    offered = zsh("sta")
    assert "start" in offered
    assert "status" in offered
    assert '"stop"' not in offered
    assert "files" in zsh("stop", "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(path: str, project: Path, temporary: Path) -> None:
    script = ROOT / "completions" / "devsup.fish"

    def fish(line: str) -> list[str]:
        code = f"source {script}; complete -C '{line}'"
        variables = {"PATH": path, "HOME": str(temporary), "XDG_CONFIG_HOME": str(temporary)}
        done = subprocess.run(
            ["fish", "--no-config", "-c", code],
            env=with_changes(variables),
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
        )
        return [one.partition("\t")[0] for one in done.stdout.splitlines()]

    assert fish("devsup sta") == ["start", "status"]
    assert fish("devsup start --port a") == ["auto"]


@pytest.mark.parametrize(
    ("shell", "variables"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "devsup sta"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "devsup sta", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_what_the_other_shells_ask_is_answered(shell: str, variables: dict[str, str], project: Path) -> None:
    """The question is the one that their scripts ask."""
    done = subprocess.run(
        [sys.executable, "-m", "devsup"],
        env=with_changes({"_DEVSUP_COMPLETE": f"complete_{shell}", **variables}),
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "start" in done.stdout
    assert "status" in done.stdout
    assert "stop" not in done.stdout

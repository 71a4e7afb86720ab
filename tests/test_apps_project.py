"""Every folder of a project, however one gets there, must give the same project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devsup.apps.project import find_project
from devsup.errors import UsageError
from tests.apps_layouts import Tree, git, lay, package

WORKSPACE = package(workspaces=["apps/*"])
RUN = package(dev="next dev")

# (what there is, folder one stands in, project)
LAYOUTS: dict[str, tuple[Tree, str, str]] = {
    "nothing at all": ({"a/b": None}, "a/b", "a/b"),
    "nearest package.json": ({"package.json": {}, "a/package.json": {}, "a/src": None}, "a/src", "a"),
    "npm workspaces": ({"package.json": WORKSPACE, "apps/web/package.json": {}}, "apps/web", "."),
    "yarn 1 workspaces": (
        {"package.json": package(workspaces={"packages": ["apps/*"]}), "apps/web/package.json": {}},
        "apps/web",
        ".",
    ),
    "pnpm workspace": (
        {"pnpm-workspace.yaml": "packages:\n  - apps/*\n", "apps/web/package.json": {}},
        "apps/web",
        ".",
    ),
    "git over workspaces": (
        {".git/HEAD": "", "a/package.json": WORKSPACE, "a/apps/web/package.json": {}},
        "a/apps/web",
        ".",
    ),
    "devsup.toml below git": ({".git/HEAD": "", "a/devsup.toml": "", "a/web/package.json": {}}, "a/web", "a"),
    "devsup.toml above git": ({"devsup.toml": "", "repo/.git/HEAD": "", "repo/web": None}, "repo/web", "."),
    "nearest devsup.toml": ({"devsup.toml": "", "a/devsup.toml": "", "a/b": None}, "a/b", "a"),
    "a folder .git that is no repository": ({"package.json": {}, "a/.git": None}, "a", "."),
    "a .git file of git's": ({".git": "gitdir: ./.bare\n", ".bare/HEAD": "", "a": None}, "a", "."),
    "a .git file of somebody else's": ({"package.json": {}, "a/.git": "hello"}, "a", "."),
    "a folder called devsup.toml": ({"package.json": {}, "a/devsup.toml/x": ""}, "a", "."),
    "inside of installed packages": (
        {"package.json": {}, "node_modules/x/package.json": {}, "node_modules/x/lib": None},
        "node_modules/x/lib",
        ".",
    ),
    "inside of what was built": ({"package.json": {}, ".next/package.json": {}}, ".next", "."),
    "below a hidden folder": (
        {".git/HEAD": "", "package.json": RUN, ".cache/a/b/package.json": RUN, ".cache/a/b/src": None},
        ".cache/a/b/src",
        ".cache/a/b",
    ),
    "a workspace below a hidden folder": (
        {".git/HEAD": "", "tmp/a/package.json": WORKSPACE, "tmp/a/apps/web/package.json": RUN},
        "tmp/a/apps/web",
        "tmp/a",
    ),
    "nothing to run below a hidden folder": (
        {".git/HEAD": "", ".storybook/package.json": {}},
        ".storybook",
        ".",
    ),
    "a devsup.toml above a hidden folder": ({"devsup.toml": "", ".a/package.json": RUN}, ".a", "."),
    "a repository below a hidden folder": (
        {".a/b/.git/HEAD": "", ".a/b/web/package.json": RUN},
        ".a/b/web",
        ".a/b",
    ),
    "broken package.json": ({"package.json": "{", "src": None}, "src", "."),
    "broken package.json below a workspace": (
        {"package.json": WORKSPACE, "apps/web/package.json": "{"},
        "apps/web",
        ".",
    ),
}


@pytest.mark.parametrize(("tree", "here", "project"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_belongs_to_one_project(temporary: Path, tree: Tree, here: str, project: str) -> None:
    lay(temporary, tree)
    assert find_project(str(temporary / here)) == str((temporary / project).resolve())


@pytest.mark.parametrize(("tree", "here", "project"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_symlink_gives_the_same_project(temporary: Path, tree: Tree, here: str, project: str) -> None:
    lay(temporary / "real", tree)
    (temporary / "link").symlink_to(temporary / "real" / here)
    assert find_project(str(temporary / "link")) == str((temporary / "real" / project).resolve())


def test_two_worktrees_are_two_projects(temporary: Path) -> None:
    """Wherever a worktree lies: beside the repository, inside it, below a devsup.toml of the repository."""
    repo = lay(temporary / "repo", {"web/package.json": {}, "devsup.toml": ""})
    git(repo, "init", "-q")
    git(repo, "add", "web")
    git(repo, "commit", "-qm", "one")
    git(repo, "worktree", "add", "-q", "../beside")
    git(repo, "worktree", "add", "-q", "inside")
    found = [find_project(str(folder / "web")) for folder in (repo, temporary / "beside", repo / "inside")]
    assert found == [str(repo), str(temporary / "beside"), str(repo / "inside")]


def test_a_submodule_is_a_part_of_its_superproject(temporary: Path) -> None:
    """Its packages are installed and its scripts run from there: two roots would give one app two servers."""
    part = lay(temporary / "part", {"package.json": {}})
    whole = lay(temporary / "whole", {"package.json": {}})
    for repository in (part, whole):
        git(repository, "init", "-q")
        git(repository, "add", ".")
        git(repository, "commit", "-qm", "one")
    git(whole, "submodule", "--quiet", "add", str(part), "apps/web")
    assert (whole / "apps/web/.git").is_file()
    assert find_project(str(whole / "apps/web")) == str(whole)


def test_a_relative_folder_counts_from_the_current_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(temporary, {"package.json": {}, "src": None})
    monkeypatch.chdir(temporary / "src")
    assert find_project(".") == find_project("..") == str(temporary)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_a_usage_error(temporary: Path, name: str) -> None:
    (temporary / "file").touch()
    with pytest.raises(UsageError) as caught:
        find_project(str(temporary / name))
    assert caught.value.message == f"`{temporary / name}` is not a folder"
    assert caught.value.hint == "name an existing folder"


def test_the_root_of_the_file_system_is_a_project() -> None:
    assert find_project("/") == "/"


def test_a_fifo_does_not_hang_the_search(temporary: Path) -> None:
    """A reader that opened it would wait for a writer for ever."""
    os.mkfifo(temporary / ".git")
    os.mkfifo(temporary / "package.json")
    os.mkfifo(temporary / "pnpm-workspace.yaml")
    assert find_project(str(temporary)) == str(temporary)

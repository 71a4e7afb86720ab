"""What is missing is said before anything starts, with what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devsup.apps.commands import plan, validate
from devsup.errors import DevsupError, MissingDependencies, MissingExecutable, UsageError
from tests.apps_layouts import EXPO, NEXT, Tree, lay, package, plan_of

NEXT_BIN = "node_modules/.bin/next"


def program(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def checked(
    root: Path, *command: str, folder: str = ".", path: str = "/usr/bin:/bin", **options: object
) -> str:
    environ = {"PATH": path}
    return validate(plan_of(root, folder, *command, environ=environ, **options), environ)


def fails(kind: type[DevsupError], root: Path, *command: str, **options: str) -> tuple[str, str | None]:
    with pytest.raises(kind) as caught:
        checked(root, *command, **options)
    assert not (caught.value.hint or "").startswith("run `devsup")
    return caught.value.message, caught.value.hint


def test_a_program_is_found_on_the_path(temporary: Path) -> None:
    program(temporary / "bin/x")
    program(temporary / "plain/x", mode=0o644)
    (temporary / "folder/x").mkdir(parents=True)
    path = f"{temporary}/missing:{temporary}/folder:{temporary}/plain:{temporary}/bin"
    assert checked(temporary, "x", path=path) == f"{temporary}/bin/x"
    assert checked(temporary, "x", folder="bin", path="") == f"{temporary}/bin/x"
    assert checked(temporary, "x", folder=".", path="bin") == f"{temporary}/bin/x"


def test_a_path_of_the_callers_own_counts(temporary: Path) -> None:
    program(temporary / "bin/x")
    assert checked(temporary, "x", env={"PATH": f"{temporary}/bin"}) == f"{temporary}/bin/x"


def test_a_path_counts_from_the_folder_of_the_command(temporary: Path) -> None:
    program(temporary / "a/run.sh")
    assert checked(temporary, "./run.sh", folder="a") == f"{temporary}/a/run.sh"
    assert checked(temporary, "../a/run.sh", folder="a") == f"{temporary}/a/run.sh"
    assert checked(temporary, f"{temporary}/a/run.sh") == f"{temporary}/a/run.sh"


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("nope", "`nope` is not on the PATH", "install `nope`, or put its folder on the PATH"),
        ("pnpm", "`pnpm` is not on the PATH", "install `pnpm`, or put its folder on the PATH"),
        ("node", "`node` is not on the PATH", "install Node.js, or put its folder on the PATH"),
        ("./nope", "`{root}/nope` does not exist", "correct the path of the program"),
        ("./folder", "`{root}/folder` is a folder, not a program", "name the program in it"),
        ("./plain", "`{root}/plain` may not be executed", "run `chmod +x {root}/plain`"),
        ("plain", "`{root}/plain` may not be executed", "run `chmod +x {root}/plain`"),
        ("tsx", "`tsx` is not on the PATH", "it is in node_modules/.bin: say `npx tsx`"),
        (
            "./lost",
            "`{root}/lost` needs `/no/such/python`, which does not exist",
            "install `/no/such/python`",
        ),
        (
            "./script",
            "`{root}/script` needs `node`, which is not on the PATH",
            "install Node.js, or put its folder on the PATH",
        ),
        (
            "./flags",
            "`{root}/flags` needs `deno`, which is not on the PATH",
            "install `deno`, or put its folder on the PATH",
        ),
    ],
)
def test_a_missing_program_is_named(temporary: Path, word: str, message: str, hint: str) -> None:
    root = lay(temporary, {"folder": None})
    program(root / "plain", mode=0o644)
    program(root / "script", "#!/usr/bin/env node\n")
    program(root / "flags", "#! /usr/bin/env -S A=1 deno run -A\n")
    program(root / "lost", "#!/no/such/python -u\n")
    program(root / "node_modules/.bin/tsx")
    found = fails(MissingExecutable, root, word, path=str(root))
    assert found == (message.format(root=root), hint.format(root=root))


@pytest.mark.parametrize(
    "text", ["", "#!", "#! \n", "\x7fELF", "#!/bin/sh", "#!/usr/bin/env\n", "#!" + "x" * 500]
)
def test_first_lines_that_name_no_interpreter_of_ours(temporary: Path, text: str) -> None:
    program(temporary / "x", text)
    if "xxx" in text:
        fails(MissingExecutable, temporary, "./x")
    else:
        assert checked(temporary, "./x") == f"{temporary}/x"


def test_an_interpreter_that_is_there_is_enough(temporary: Path) -> None:
    program(temporary / "bin/node")
    program(temporary / "x", "#!/usr/bin/env node\n")
    assert checked(temporary, "./x", path=f"{temporary}/bin") == f"{temporary}/x"


def test_an_unreadable_program_may_still_run(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(temporary / "x", mode=0o111)

    def refusing(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refusing)
    assert checked(temporary, "./x") == f"{temporary}/x"


# -- packages -----------------------------------------------------------------------------------------------

MISSING: dict[str, tuple[Tree, str, str, str]] = {
    "npm": (
        {"package.json": NEXT},
        ".",
        "the packages of `{root}` are not installed: there is no `node_modules`",
        "run `npm install` in {root}",
    ),
    "pnpm": (
        {"package.json": EXPO, "pnpm-lock.yaml": ""},
        ".",
        "the packages of `{root}` are not installed: there is no `node_modules`",
        "run `pnpm install` in {root}",
    ),
    "a workspace": (
        {"package.json": package(workspaces=["apps/*"]), "yarn.lock": "", "apps/web/package.json": NEXT},
        "apps/web",
        "the packages of `{root}/apps/web` are not installed: there is no `node_modules`",
        "run `yarn install` in {root}",
    ),
    "half installed": (
        {"package.json": NEXT, "bun.lock": "", "node_modules/react": None},
        ".",
        "`next` is not installed in `{root}`",
        "run `bun install` in {root}",
    ),
    "any script": (
        {"package.json": package("vite", dev="vite")},
        ".",
        "the packages of `{root}` are not installed: there is no `node_modules`",
        "run `npm install` in {root}",
    ),
    "a wrapped script": (
        {"package.json": package("next", dev="A=1 next dev")},
        ".",
        "the packages of `{root}` are not installed: there is no `node_modules`",
        "run `npm install` in {root}",
    ),
}


@pytest.mark.parametrize(("tree", "folder", "message", "hint"), MISSING.values(), ids=MISSING)
def test_packages_that_are_not_installed(
    temporary: Path, tree: Tree, folder: str, message: str, hint: str
) -> None:
    root = lay(temporary, tree)
    found = fails(MissingDependencies, root, folder=folder)
    assert found == (message.format(root=root), hint.format(root=root))


def test_a_dangling_link_is_not_installed(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT, "node_modules/.bin": None})
    (root / NEXT_BIN).symlink_to("../next/dist/bin/next")
    assert fails(MissingDependencies, root)[0] == f"`next` is not installed in `{root}`"


@pytest.mark.parametrize(
    "words", ["npx next dev", "npx --no-install next dev", "next dev", "env A=1 npx next dev"]
)
def test_npx_never_fetches_what_is_not_installed(temporary: Path, words: str) -> None:
    """Bare npx hangs without a network and takes the newest version with one."""
    root = lay(temporary, {"package.json": package("react"), "pnpm-lock.yaml": ""})
    found = fails(MissingDependencies, root, *words.split())
    assert found == (f"`next` is not installed in `{root}`", f"run `pnpm add next` in {root}")
    lay(root, {"package.json": NEXT})
    assert fails(MissingDependencies, root, *words.split())[1] == f"run `pnpm install` in {root}"
    lay(temporary / "bare", {})
    found = fails(MissingDependencies, temporary / "bare", *words.split())
    assert found[1] == f"run `npm install next` in {temporary}/bare"


def test_npx_does_not_take_another_version_from_the_path(temporary: Path) -> None:
    program(temporary / "bin/expo")
    lay(temporary, {"package.json": EXPO})
    assert fails(MissingDependencies, temporary, "npx", "expo", "start", path=f"{temporary}/bin")


def test_a_program_on_the_path_may_be_typed(temporary: Path) -> None:
    program(temporary / "bin/expo")
    assert checked(temporary, "expo", "start", path=f"{temporary}/bin") == f"{temporary}/bin/expo"


def test_an_installed_app_is_fine(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT})
    program(root / NEXT_BIN)
    program(root / "bin/node")
    assert checked(root, path=f"{root}/bin") == f"{root}/{NEXT_BIN}"


def test_pnpms_shim_needs_node_too(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT})
    program(root / NEXT_BIN, '#!/bin/sh\nexec node "$basedir/../next/dist/bin/next" "$@"\n')
    found = fails(MissingExecutable, root, path=str(root))
    assert found[0] == f"`{root}/{NEXT_BIN}` needs `node`, which is not on the PATH"


def test_an_app_that_needs_no_packages_needs_no_folder_of_them(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package(dev="node server.js")})
    program(root / "bin/npm")
    assert checked(root, path=f"{root}/bin") == f"{root}/bin/npm"


def test_packages_above_the_project_count_for_a_script(temporary: Path) -> None:
    """Node looks there too, and a false alarm here would keep a working app from starting."""
    root = lay(temporary, {"a/package.json": package("x", dev="x"), "node_modules": None})
    program(root / "bin/npm")
    assert checked(root / "a", path=f"{root}/bin") == f"{root}/bin/npm"


def test_yarns_archives_count_as_installed(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package("x", dev="x"), ".pnp.cjs": "", "yarn.lock": ""})
    program(root / "bin/yarn")
    assert checked(root, path=f"{root}/bin") == f"{root}/bin/yarn"


def test_a_manager_that_is_missing_is_named(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package(dev="x"), "pnpm-lock.yaml": ""})
    assert fails(MissingExecutable, root, path="/nowhere")[0] == "`pnpm` is not on the PATH"


# -- folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_folder_that_is_none(temporary: Path, name: str) -> None:
    (temporary / "file").touch()
    environ = {"PATH": "/bin"}
    made = plan(str(temporary), str(temporary / name), command=["sleep", "1"], environ=environ)
    with pytest.raises(UsageError) as caught:
        validate(made, environ)
    assert caught.value.message == f"`{temporary / name}` is not a folder"


def test_a_folder_that_may_not_be_entered(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faked, since tests may run as root, who may enter everything."""
    environ = {"PATH": "/bin"}
    made = plan(str(temporary), str(temporary), command=["sleep", "1"], environ=environ)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != str(temporary))
    with pytest.raises(UsageError) as caught:
        validate(made, environ)
    assert caught.value.message == f"`{temporary}` may not be entered: permission denied"


def test_nothing_is_written(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT})
    before = sorted(root.rglob("*"))
    fails(MissingDependencies, root)
    assert sorted(root.rglob("*")) == before

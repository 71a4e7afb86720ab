"""Could this be started at all? Found out before anything is written or spawned, and said with what to do."""

from __future__ import annotations

import os

from devsup.errors import MissingDependencies, MissingExecutable, UsageError
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.apps.commands import Plan

__all__ = ["Needs", "environment", "validate"]

#: What a shebang line is read of; the kernel's own limit is 256.
SHEBANG_BYTES = 256


class Needs(Record):
    """
    The packages that a command needs: a `node_modules` seen from ``dir``.

    ``manager`` installs them in ``install_dir``. ``program`` is the one that is run from there; with ``add``
    no `package.json` lists it yet. ``install`` is the command that installs them where it is no Node.js.
    """

    dir: str
    manager: str
    install_dir: str
    program: str | None
    add: bool = False
    install: tuple[str, ...] = ()


def environment(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which ``plan`` runs, without devsup's marker."""
    changed = {**environ, **{name: value for name, value in plan.env.items() if value is not None}}
    for name, value in plan.env.items():
        if value is None:
            changed.pop(name, None)
    return changed


def validate(plan: Plan, environ: Mapping[str, str]) -> str:
    """
    Return the absolute path of the program that ``plan`` runs.

    :raises UsageError: the folder is missing or may not be entered
    :raises MissingDependencies: its packages are not installed
    :raises MissingExecutable: the program, or the interpreter it names, is missing or may not be run
    """
    if not os.path.isdir(plan.cwd):
        raise UsageError(f"`{plan.cwd}` is not a folder", hint="name an existing folder")
    if not os.access(plan.cwd, os.X_OK):
        raise UsageError(
            f"`{plan.cwd}` may not be entered: permission denied", hint="ask its owner for access"
        )
    path = environment(plan, environ).get("PATH", os.defpath)
    if plan.needs is not None and plan.needs.install:
        _check_environment(plan, plan.needs, path)
    elif plan.needs is not None:
        _check_packages(plan, plan.needs)
    executable = _executable(plan.command[0], plan.cwd, path)
    _check_interpreter(executable, plan.cwd, path)
    return executable


def _check_packages(plan: Plan, needs: Needs) -> None:
    if needs.program is not None:
        program = needs.program
        local = next((word for word in plan.command if word.endswith(f"/node_modules/.bin/{program}")), None)
        if local is None or os.path.exists(local):
            return
        there = _installed(needs.dir)
        said = f"`{program}` is not installed in `{needs.install_dir}`"
        if not there and not needs.add:
            said = f"the packages of `{needs.dir}` are not installed: there is no `node_modules`"
    elif _installed(needs.dir):
        return
    else:
        said = f"the packages of `{needs.dir}` are not installed: there is no `node_modules`"
    install = f"{needs.manager} install"
    if needs.program is not None and needs.add:
        verb = "install" if needs.manager == "npm" else "add"
        install = f"{needs.manager} {verb} {needs.program}"
    raise MissingDependencies(
        said,
        hint=f"run `{install}` in {needs.install_dir}",
        details={"folder": needs.install_dir, "command": install.split()},
    )


def _check_environment(plan: Plan, needs: Needs, path: str) -> None:
    """Tell how the packages of a Python project are installed where its program is missing."""
    program = next((word for word in plan.command if "=" not in word), plan.command[0])
    if "/" in program:
        there = os.path.exists(os.path.join(plan.cwd, program))
    else:
        there = any(os.path.exists(os.path.join(plan.cwd, one, program)) for one in path.split(os.pathsep))
    if there or os.path.basename(program) == needs.manager:
        return
    install = " ".join(needs.install)
    if needs.install[0] == ".venv/bin/pip" and not os.path.exists(f"{needs.install_dir}/.venv"):
        install = f"python3 -m venv .venv && {install}"
    raise MissingDependencies(
        f"`{os.path.basename(program)}` is not installed for `{needs.dir}`",
        hint=f"run `{install}` in {needs.install_dir}",
        details={"folder": needs.install_dir, "command": list(needs.install)},
    )


def _installed(folder: str) -> bool:
    while True:
        if any(os.path.exists(os.path.join(folder, name)) for name in ("node_modules", ".pnp.cjs")):
            return True
        parent = os.path.dirname(folder)
        if parent == folder:
            return False
        folder = parent


def _executable(program: str, cwd: str, path: str) -> str:
    if "/" in program:
        found = os.path.normpath(os.path.join(cwd, program))
        if not os.path.exists(found):
            raise MissingExecutable(f"`{found}` does not exist", hint="correct the path of the program")
        return _runnable(found)
    unusable = None
    for folder in path.split(os.pathsep):
        found = os.path.join(cwd, folder, program)
        if os.path.isfile(found):
            if os.access(found, os.X_OK):
                return found
            unusable = unusable or found
    if unusable is not None:
        return _runnable(unusable)
    raise MissingExecutable(
        f"`{program}` is not on the PATH",
        hint=_how_to_get(program, cwd),
        details={"program": program},
    )


def _runnable(path: str) -> str:
    if os.path.isdir(path):
        raise MissingExecutable(f"`{path}` is a folder, not a program", hint="name the program in it")
    if not os.access(path, os.X_OK):
        raise MissingExecutable(f"`{path}` may not be executed", hint=f"run `chmod +x {path}`")
    return path


def _check_interpreter(executable: str, cwd: str, path: str) -> None:
    """Follow a script's first line: the kernel says only "no such file" when its interpreter is missing."""
    try:
        with open(executable, "rb") as file:
            line = file.read(SHEBANG_BYTES).split(b"\n")[0]
    except OSError:
        return  # execute-only programs exist
    if not line.startswith(b"#!"):
        return
    words = os.fsdecode(line[2:]).split()
    if not words:
        return
    wanted = words[0]
    if os.path.basename(wanted) == "env":
        rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        wanted = rest[0] if rest else wanted
    elif "/node_modules/.bin/" in executable and os.path.basename(wanted) == "sh":
        wanted = "node"  # the shim that pnpm writes ends in `exec node`
    if "/" in wanted:
        if not os.path.exists(os.path.join(cwd, wanted)):
            raise MissingExecutable(
                f"`{executable}` needs `{wanted}`, which does not exist", hint=f"install `{wanted}`"
            )
    elif not any(os.access(os.path.join(cwd, folder, wanted), os.X_OK) for folder in path.split(os.pathsep)):
        raise MissingExecutable(
            f"`{executable}` needs `{wanted}`, which is not on the PATH",
            hint=_how_to_get(wanted, cwd),
            details={"program": wanted},
        )


def _how_to_get(program: str, cwd: str) -> str:
    if os.path.exists(os.path.join(cwd, "node_modules/.bin", program)):
        return f"it is in node_modules/.bin: say `npx {program}`"
    if program in ("node", "npm", "npx"):
        return "install Node.js, or put its folder on the PATH"
    return f"install `{program}`, or put its folder on the PATH"

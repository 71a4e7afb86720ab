"""
The command that runs an app, or that a caller typed, before its port is known.

A script that is plainly `next dev ...` runs as the installed program itself, without a package manager in
front: one process fewer to signal, and nothing between it and devsup that dies first.
"""

from __future__ import annotations

import os

from devsup.apps import detect, manifest, scripts
from devsup.apps.checks import Needs
from devsup.apps.ports import Recipe, take_port
from devsup.apps.presets import COMMAND, KINDS
from devsup.apps.project import upward
from devsup.apps.recognise import positional
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.apps.detect import App
    from devsup.apps.folders import Folders
    from devsup.apps.presets import Kind
    from devsup.apps.recognise import Recognised

__all__ = ["Line", "of_app", "of_program", "of_script", "recipe_of"]

BIN = "node_modules/.bin"

#: Signs by which a shell runs more than one command, or ends it early.
_SEVERAL = frozenset(";&|\n#")


class Line(Record):
    """
    A command before its port is known.

    The server's own arguments begin at ``args``. ``folder`` is the app's, ``cwd`` where the command runs.
    With ``wrapper`` set, that package manager runs a script that says ``text``. ``bin_dirs`` go in front of
    the PATH.
    """

    argv: list[str]
    args: int
    kind: Kind
    cwd: str
    folder: str
    needs: Needs | None = None
    bin_dirs: tuple[str, ...] = ()
    text: str = ""
    wrapper: str | None = None
    #: Variables that it needs beside its port's.
    env: dict[str, str] = {}  # noqa: RUF012 - a default of a record, never changed


def of_app(folders: Folders, app: App, environ: Mapping[str, str]) -> Line:
    """Return the line that runs ``app`` by its own script."""
    kind, manager = KINDS[app.kind], app.manager or "npm"
    needs = Needs(app.dir, manager, app.install_dir or app.dir, None)
    words = [kind.program, kind.programs[kind.program][0]] if app.script is None else []
    if app.script is not None and not app.hooks:
        words = scripts.plain_words(app.text)
    if len(words) > 1 and words[1] in kind.programs.get(words[0], ()):
        path = _direct(folders, app.dir, words[0], manager, environ)
        if path is not None:
            return Line(
                argv=[path, *words[1:]],
                args=2,
                kind=kind,
                cwd=app.dir,
                folder=os.path.realpath(os.path.join(app.dir, positional(words[2:], kind))),
                needs=needs.replace(program=words[0]),
                bin_dirs=_bin_dirs(app.dir, folders.project),
            )
    argv = [manager, "run", *([app.script] if app.script is not None else words)]
    return Line(
        argv=argv,
        args=len(argv),
        kind=kind,
        cwd=app.dir,
        folder=app.dir,
        needs=needs if app.has_dependencies or kind is not COMMAND else None,
        text=app.text or " ".join(words),
        wrapper=manager,
    )


def of_command(command: list[str], kind: Kind, cwd: str) -> Line:
    """Return the line of a command of which nothing is known but that it runs a server of ``kind``."""
    if kind is COMMAND:
        return Line(argv=command, args=len(command), kind=kind, cwd=cwd, folder=cwd)
    if command[:2] == ["sh", "-c"] and len(command) == 3 and not _SEVERAL.intersection(command[2]):
        # Words behind the script are its own `$1` and so on: the server gets them at the end of its command.
        command = [*command[:2], f'{command[2]} "$@"', "sh"]
        return Line(argv=command, args=len(command), kind=kind, cwd=cwd, folder=cwd)
    return Line(argv=command, args=1, kind=kind, cwd=cwd, folder=cwd)


def with_host(line: Line, host: str | None) -> Line:
    """Return ``line`` listening on ``host``, told in the way of its kind; a command that says one wins."""
    if host is None:
        return line
    flags = line.kind.host_flags
    said = " ".join((*line.argv[line.args :], line.text))
    if any(word.partition("=")[0] in flags for word in said.split()):
        return line
    call = scripts.call_in(line.text) if line.wrapper is not None else None
    if not flags or (line.wrapper is not None and (call is None or not call.last)):
        return line.replace(env={**line.env, "HOST": host})
    dashes = ["--"] if line.wrapper == "npm" and "--" not in line.argv else []
    return line.replace(argv=[*line.argv, *dashes, flags[0], host])


def of_script(
    folders: Folders, found: Recognised, package: manifest.Package, prefix: list[str], cwd: str
) -> Line:
    """Return the line of a script that the caller runs by a package manager, as it was typed."""
    manager, install_dir = detect.manager_of(folders, package.dir)
    return Line(
        argv=[*prefix, *found.argv[found.start :]],
        args=len(prefix) + found.args - found.start,
        kind=found.kind,
        cwd=found.cwd if found.local else cwd,
        folder=package.dir,
        needs=Needs(package.dir, manager, install_dir, None) if package.dependencies else None,
        text=package.scripts[str(found.script)],
        wrapper=found.manager,
    )


def of_program(
    folders: Folders, found: Recognised, prefix: list[str], cwd: str, environ: Mapping[str, str]
) -> Line:
    """Return the line of a known program that the caller runs; the installed one takes the place of `npx`."""
    argv, args, needs = found.argv[found.start :], found.args - found.start, None
    program = str(found.program)
    if found.local:
        cwd = found.cwd  # the launcher's own option for it goes with the launcher
    if found.local or argv[0] == program:
        path = _installed(cwd, folders.project, program)
        if path is None and not found.local and on_path(program, environ):
            path = program
        else:
            needs = _needs(folders, cwd, found.kind, program)
        launcher = found.at - found.start
        argv = [path or os.path.join(cwd, BIN, program), *argv[launcher + 1 :]]
        args -= launcher
    return Line(
        argv=[*prefix, *argv],
        args=len(prefix) + args,
        kind=found.kind,
        cwd=cwd,
        folder=found.folder,
        needs=needs,
        bin_dirs=_bin_dirs(cwd, folders.project),
    )


def recipe_of(line: Line) -> tuple[Recipe, int | None]:
    """Return how the line is told its port, and the port that it already says."""
    kind = line.kind
    argv, own, at = take_port(line.argv, line.args, kind)
    if at is not None:
        return Recipe(argv=argv, flag=kind.port_flags[0], at=at), own
    if line.wrapper is None:
        if kind.port_by_flag:
            return Recipe(argv=argv, flag=kind.port_flags[0]), None
        return Recipe(argv=argv, variable=kind.port_env), None
    call, own = scripts.call_in(line.text), scripts.port_in(line.text, kind)
    if call is not None and call.last and (kind.port_by_flag or own is not None):
        return Recipe(argv=argv, flag=kind.port_flags[0], dashes=line.wrapper == "npm", own=own), own
    if own is not None:
        return Recipe(argv=argv, own=own), own
    return Recipe(argv=argv, variable=kind.port_env), None


def on_path(program: str, environ: Mapping[str, str]) -> bool:
    """Tell whether ``program`` is on the PATH of ``environ``."""
    paths = environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(path, program), os.X_OK) for path in paths)


def _direct(
    folders: Folders, folder: str, program: str, manager: str, environ: Mapping[str, str]
) -> str | None:
    """Return the path at which ``program`` is, or will be once it is installed; None if it has none."""
    path = _installed(folder, folders.project, program)
    if path is None and any(os.path.exists(f"{above}/.pnp.cjs") for above in upward(folder, folders.project)):
        return None  # yarn keeps packages in archives that only yarn can run
    if manager == "bun" and not on_path("node", environ):
        return None  # bun stands in for the `node` that the program's first line asks for
    return path or os.path.join(folder, BIN, program)


def _installed(folder: str, project: str, program: str) -> str | None:
    for above in upward(folder, project):
        path = os.path.join(above, BIN, program)
        if os.path.exists(path):
            return path
    return None


def _needs(folders: Folders, folder: str, kind: Kind, program: str) -> Needs:
    manager, install_dir = detect.manager_of(folders, folder)
    package = folders.nearest(folder)
    listed = isinstance(package, manifest.Package) and not package.dependencies.isdisjoint(
        (program, *kind.dependencies)
    )
    return Needs(folder, manager, install_dir, program, add=not listed)


def _bin_dirs(folder: str, project: str) -> tuple[str, ...]:
    return tuple(path for above in upward(folder, project) if os.path.isdir(path := f"{above}/{BIN}"))

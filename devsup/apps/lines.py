"""
The command that runs an app, or that a caller typed, before its port is known.

A script that is plainly `next dev ...` runs as the installed program itself, without a package manager in
front: one process fewer to signal, and nothing between it and devsup that dies first.
"""

from __future__ import annotations

import os

from devsup.apps import detect, manifest, python, scripts
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
    the PATH; ``environment`` is the virtual environment that it runs in.
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
    environment: str | None = None
    #: The address to listen on, where it is said together with the port.
    host: str = ""


def of_app(folders: Folders, app: App, environ: Mapping[str, str]) -> Line:
    """Return the line that runs ``app`` by its own script."""
    kind, manager = KINDS[app.kind], app.manager or "npm"
    if kind.python and app.script is None:
        return _of_python(folders, app, kind, manager)
    needs = Needs(app.dir, manager, app.install_dir or app.dir, None)
    words = [word for word in kind.words if word] if app.script is None else []
    if app.script is not None and not app.hooks:
        words = scripts.plain_words(app.text)
    args = _args(words, kind)
    if args:
        path = _direct(folders, app.dir, words[0], manager, environ)
        if path is not None:
            below = positional(words[args:], kind) if kind.takes_folder else ""
            return Line(
                argv=[path, *words[1:]],
                args=args,
                kind=kind,
                cwd=app.dir,
                folder=os.path.realpath(os.path.join(app.dir, below)),
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
    if line.kind.port_is_argument:
        return line.replace(host=f"[{host}]" if ":" in host else host)
    flags = line.kind.host_flags
    said = " ".join((*line.argv[line.args :], line.text))
    if any(word.partition("=")[0] in flags for word in said.split()):
        return line
    call = scripts.call_in(line.text) if line.wrapper is not None else None
    if not flags or (line.wrapper is not None and (call is None or not call.last)):
        return line.replace(env={**line.env, "HOST": host})
    dashes = ["--"] if line.wrapper == "npm" and "--" not in line.argv else []
    return line.replace(argv=[*line.argv, *dashes, flags[0], host])


def _args(words: list[str], kind: Kind) -> int:
    """Return where the arguments of the kind's program begin; 0 where it is not what the words run."""
    subcommands = kind.programs.get(words[0], ()) if words and not kind.python else ()
    if len(words) > 1 and words[1] in subcommands:
        return 2
    # One more word may be a subcommand that does something else.
    bare = "" in subcommands and kind.takes_folder and (len(words) == 1 or words[1][0] in "-.")
    return 1 if bare else 0


def _of_python(folders: Folders, app: App, kind: Kind, manager: str) -> Line:
    """Return the line of a Python project's app: in its virtual environment, where there is one."""
    entry = app.entry or python.entry_of(app.dir, kind) or "main:app"
    words = [entry if word == "{entry}" else word for word in kind.words]
    environment = python.environment_of(app.dir, folders.project)
    prefix: list[str] = []
    if words[0] in kind.entries:
        words.insert(0, f"{environment}/bin/python" if environment else "python3")
    elif environment is not None:
        words[0] = f"{environment}/bin/{words[0]}"
    if environment is None:
        prefix = python.runner(manager)
    return Line(
        argv=[*prefix, *words],
        args=len(prefix) + len(words),
        kind=kind,
        cwd=app.dir,
        folder=app.dir,
        needs=_python_needs(app.dir, manager, app.install_dir, kind, environment),
        bin_dirs=(f"{environment}/bin",) if environment else (),
        environment=environment,
    )


def _python_needs(folder: str, manager: str, install_dir: str, kind: Kind, environment: str | None) -> Needs:
    install = python.install_words(install_dir, manager, environment)
    return Needs(folder, manager, install_dir, kind.words[0], install=tuple(install))


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
    if found.kind.python:
        return _of_typed_python(folders, found, prefix, cwd)
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


def _of_typed_python(folders: Folders, found: Recognised, prefix: list[str], cwd: str) -> Line:
    """Return the line of a Python program as it was typed, from the project's own environment."""
    argv = found.argv[found.start :]
    environment = python.environment_of(found.folder, folders.project)
    manager, install_dir = python.manager_of(found.folder, folders.project)
    named = argv[0] == found.program or argv[0] in python.INTERPRETERS
    if environment is not None and named and argv[0] not in found.kind.entries:
        name = "python" if argv[0] in python.INTERPRETERS else argv[0]
        argv = [f"{environment}/bin/{name}", *argv[1:]]
    return Line(
        argv=[*prefix, *argv],
        args=len(prefix) + found.args - found.start,
        kind=found.kind,
        cwd=cwd,
        folder=found.folder,
        needs=_python_needs(found.folder, manager, install_dir, found.kind, environment) if named else None,
        bin_dirs=(f"{environment}/bin",) if environment else (),
        environment=environment,
    )


def recipe_of(line: Line) -> tuple[Recipe, int | None]:
    """Return how the line is told its port, and the port that it already says."""
    kind = line.kind
    taken = take_port(line.argv, line.args, kind)
    argv, own = taken.argv, taken.port
    flag = kind.port_flags[0] if kind.port_flags else None
    by_flag = kind.port_by_flag or kind.port_is_argument
    host = (taken.host or line.host) if kind.port_is_argument else None
    if taken.at is not None or (line.wrapper is None and by_flag):
        return Recipe(argv=argv, flag=flag, at=taken.at, host=host, strict=kind.strict), own
    if line.wrapper is None:
        return Recipe(argv=argv, variable=kind.port_env), None
    call, own = scripts.call_in(line.text), scripts.port_in(line.text, kind)
    repeatable = own is None or not kind.port_once
    if call is not None and call.last and repeatable and (by_flag or own is not None):
        dashes = line.wrapper == "npm"
        strict = tuple(word for word in kind.strict if word not in call.arguments.split())
        return Recipe(argv=argv, flag=flag, dashes=dashes, own=own, host=host, strict=strict), own
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

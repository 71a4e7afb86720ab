"""
What is this command? An argv as a person or agent would type it, read as a dev server where it is one.

Only words are looked at: no shell string is parsed, and what is not understood is simply a command.
"""

from __future__ import annotations

import os

from devsup import masking
from devsup.apps import manifest, python, scripts
from devsup.apps.presets import of_program, refined
from devsup.errors import DevsupError, NotFound
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.folders import Folders
    from devsup.apps.presets import Kind

__all__ = ["Recognised", "positional", "recognise", "script_behind"]

#: Options of the package managers that name the folder to work in.
FOLDER_OPTIONS = frozenset(("-C", "--dir", "--prefix", "--cwd"))
#: Those that name one package of the workspace, by its name or folder.
PACKAGE_OPTIONS = {
    "npm": ("-w", "--workspace"),
    "pnpm": ("-F", "--filter"),
    "yarn": (),
    "bun": ("-F", "--filter"),
}
#: Those that work on several packages at once: whatever runs then is no one app.
MANY = frozenset(("-ws", "--workspaces", "-r", "--recursive", "--parallel", "--filter-prod", "-c", "--call"))

#: How far a script that only runs another package's is followed.
MAX_HOPS = 4

#: Options of npx and its kin that change nothing once the program is installed.
HARMLESS = frozenset(
    (
        "-y",
        "--yes",
        "--no",
        "--no-install",
        "-q",
        "--quiet",
        "--silent",
        "-s",
        "--offline",
        "--prefer-offline",
        "--bun",
        "--",
    )
)


#: Programs whose `run` runs what follows in a project's Python environment, and their options with a value.
PYTHON_RUNNERS = frozenset(("uv", "poetry", "pdm", "pipenv", "hatch", "rye"))
PYTHON_VALUE_OPTIONS = frozenset(
    (
        *(
            "--with",
            "--with-editable",
            "--with-requirements",
            "--extra",
            "--group",
            "--only-group",
            "--package",
        ),
        *("--env-file", "--index", "--python", "-p", "-W", "-X"),
    )
)


class Recognised(Record):
    """
    A command that is a script of a package or a known program.

    ``argv`` is what was typed and ``args`` the index at which the server's own arguments begin. ``script``
    is set where a package's script runs, else ``program`` at the index ``at``. With ``local`` something in
    front is left away and it runs in ``cwd``: a launcher such as npx, the words from ``start`` to ``at``, for
    which the installed program stands in, or a script that only ran this one. ``folder`` is the app's.
    ``variables`` are those that a leading `env` sets.
    """

    argv: list[str]
    args: int
    kind: Kind
    cwd: str
    folder: str
    variables: dict[str, str]
    start: int
    package: manifest.Package | None = None
    script: str | None = None
    manager: str | None = None
    program: str | None = None
    at: int = 0
    local: bool = False


def recognise(argv: list[str], folders: Folders, cwd: str) -> Recognised | None:
    """
    Return what ``argv`` is when run in ``cwd``; None for any other command.

    :raises NotFound: it runs a script that the package does not have
    :raises ConfigInvalid: the `package.json` that has the script is broken
    """
    found = _one(argv, folders, cwd)
    if found is None or found.package is None or argv[found.args :] or "--bun" in argv:
        return found
    behind = script_behind(found.package, str(found.script), folders)
    return behind.replace(variables=found.variables) if behind is not None else found


def script_behind(package: manifest.Package, script: str, folders: Folders) -> Recognised | None:
    """
    Return the script of another package that ``script`` does nothing but run; None if it does more.

    A root's `npm run dev -w web` is the app `web`, and not a second server in that app's folder.
    """
    origin, found = package.dir, None
    for _ in range(MAX_HOPS):
        words, folder = _only_call(package.scripts[script], package.dir)
        if not words or words[0] not in manifest.MANAGERS or scripts.has_hooks(package, script):
            break
        try:
            following = _one(words, folders, folder)
        except DevsupError:
            break  # whoever runs it will hear from its package manager what is wrong
        if following is None or following.package is None or words[following.args :]:
            break
        if following.package.dir == package.dir != origin:
            break
        package, script = following.package, str(following.script)
        if package.dir != origin:
            argv = [str(following.manager), "run", script]
            found = following.replace(argv=argv, args=len(argv), start=0, cwd=package.dir, local=True)
    return found


def _only_call(text: str, folder: str) -> tuple[list[str], str]:
    """Return the words of a script that is one plain command, and the folder that a `cd` in front names."""
    head, both, rest = text.partition("&&")
    words = scripts.plain_words(head)
    if both and len(words) == 2 and words[0] == "cd":
        return scripts.plain_words(rest), os.path.realpath(os.path.join(folder, words[1]))
    return scripts.plain_words(text), folder


def _one(argv: list[str], folders: Folders, cwd: str) -> Recognised | None:
    start, variables = _env_prefix(argv)
    if start >= len(argv):
        return None
    program = os.path.basename(argv[start])
    found: Recognised | None = None
    if program in manifest.MANAGERS:
        found = _manager(argv, start, program, folders, cwd)
    elif program in ("npx", "bunx", "pnpx"):
        found = _launcher(argv, start, start + 1, folders, cwd)
    elif program in ("node", "bun") and start + 1 < len(argv) and "/" in argv[start + 1]:
        found = _program(argv, start, start + 1, folders, cwd)
    elif program in python.INTERPRETERS:
        found = _python(argv, start, start + 1, folders, cwd)
    elif program in PYTHON_RUNNERS and argv[start + 1 : start + 2] == ["run"]:
        found = _python_runner(argv, start, start + 2, folders, cwd)
    else:
        found = _program(argv, start, start, folders, cwd)
    return found.replace(variables=variables) if found is not None else None


def _env_prefix(argv: list[str]) -> tuple[int, dict[str, str]]:
    if not argv or os.path.basename(argv[0]) != "env":
        return 0, {}
    variables = {}
    index = 1
    while index < len(argv) and "=" in argv[index] and not argv[index].startswith("-"):
        name, _, value = argv[index].partition("=")
        variables[name] = value
        index += 1
    if index < len(argv) and argv[index].startswith("-"):
        return 0, {}  # `env -i` and the like: whatever follows gets another environment than ours
    return index, variables


def _manager(argv: list[str], start: int, manager: str, folders: Folders, cwd: str) -> Recognised | None:
    index, folder = _options(argv, start + 1, manager, folders, cwd)
    if folder is None or index >= len(argv):
        return None
    verb = argv[index]
    if verb in ("exec", "x") and manager != "yarn":
        return _launcher(argv, start, index + 1, folders, folder)
    if verb == "workspace" and manager == "yarn" and index + 2 < len(argv):
        folder = _package_folder(argv[index + 1], folders)
        index += 2 + (argv[index + 2] == "run")
        return _script(argv, start, index, manager, folders, folder)
    if verb in ("run", "run-script"):
        index, folder = _options(argv, index + 1, manager, folders, folder)
        return _script(argv, start, index, manager, folders, folder)
    if manager == "npm":
        return _script(argv, start, index, manager, folders, folder) if verb == "start" else None
    package = folders.nearest(folder)
    if isinstance(package, manifest.Package) and verb in package.scripts and verb not in ("install", "add"):
        return _script(argv, start, index, manager, folders, folder)
    if _kind_of_program(argv, index) is not None:
        return _launcher(argv, start, index, folders, folder)
    return None


def _options(
    argv: list[str], index: int, manager: str, folders: Folders, folder: str | None
) -> tuple[int, str | None]:
    """Skip a package manager's options; return where they end and the folder they choose (None: unclear)."""
    while index < len(argv) and argv[index].startswith("-") and argv[index] != "--":
        option, equals, value = argv[index].partition("=")
        if option in MANY:
            folder = None
        elif option in ("-w", "--workspace-root") and manager == "pnpm":
            folder = folders.project
        elif option in FOLDER_OPTIONS or option in PACKAGE_OPTIONS[manager]:
            if not equals:
                index += 1
                value = argv[index] if index < len(argv) else ""
            if option in FOLDER_OPTIONS:
                folder = os.path.realpath(os.path.join(folder or "/", value))
            else:
                folder = _package_folder(value, folders)
        index += 1
    return index, folder


def _package_folder(name: str, folders: Folders) -> str | None:
    """Return the folder of the one package of the project that is called ``name`` or lies there."""
    path = os.path.realpath(os.path.join(folders.project, name))
    if "/" in name and folders.package(path) is not None:
        return path
    found = []
    for folder in folders.candidates():
        package = folders.package(folder)
        if isinstance(package, manifest.Package) and package.name == name:
            found.append(folder)
    return found[0] if len(found) == 1 else None


def _script(
    argv: list[str], start: int, index: int, manager: str, folders: Folders, folder: str | None
) -> Recognised | None:
    if index >= len(argv):
        return None
    script, args = argv[index], index + 1
    if manager == "npm":
        # npm keeps what stands before `--` for itself.
        args, folder = _options(argv, args, manager, folders, folder)
        args = argv.index("--", args) + 1 if "--" in argv[args:] else len(argv)
    if folder is None:
        return None
    package = folders.nearest(folder)
    if isinstance(package, manifest.Broken):
        raise package.error()
    if package is None:
        called = masking.shown(argv[start : index + 1])
        raise NotFound(
            f"`{called}` needs a `package.json`: none is at or above `{folder}`",
            hint="run it in the app's folder, or name the app: devsup start APP",
        )
    if script not in package.scripts:
        if "--if-present" in argv or "/" in script:
            return None
        if script == "start" and os.path.exists(os.path.join(package.dir, "server.js")):
            return None  # npm's own default is `node server.js`
        raise NotFound(
            f"no script `{script}` in `{package.dir}/package.json`; there {_listed(sorted(package.scripts))}",
            hint="use one of the scripts that are there",
            details={"known": sorted(package.scripts)},
        )
    return Recognised(
        argv=argv,
        args=args,
        kind=scripts.kind_of(package, script),
        cwd=folder,
        folder=package.dir,
        variables={},
        start=start,
        package=package,
        script=script,
        manager=manager,
    )


def _launcher(argv: list[str], start: int, index: int, folders: Folders, cwd: str) -> Recognised | None:
    """Return what npx, or `pnpm exec`, starts at the first word from ``index`` on that is no option."""
    while index < len(argv) and argv[index].startswith("-"):
        if argv[index] not in HARMLESS:
            return None
        index += 1
    found = _program(argv, start, index, folders, cwd) if index < len(argv) else None
    if found is None or found.program is None:
        return None
    # A version (`next@canary`) is wanted instead of the installed one, and with `--bun` bun instead of node.
    return found if "@" in argv[index] or "--bun" in argv[start:index] else found.replace(local=True)


def _python_runner(argv: list[str], start: int, index: int, folders: Folders, cwd: str) -> Recognised | None:
    """Return what `uv run` and its kin start; None where an option says that it is something else."""
    while index < len(argv) and argv[index].startswith("-"):
        if argv[index] in ("-m", "--module"):
            return _program(argv, start, index + 1, folders, cwd)
        if argv[index].partition("=")[0] in ("--directory", "--project", "-s", "--script"):
            return None
        index += 2 if argv[index] in PYTHON_VALUE_OPTIONS else 1
    if index < len(argv) and os.path.basename(argv[index]) in python.INTERPRETERS:
        return _python(argv, start, index + 1, folders, cwd)
    return _program(argv, start, index, folders, cwd)


def _python(argv: list[str], start: int, index: int, folders: Folders, cwd: str) -> Recognised | None:
    """Return what the arguments from ``index`` on have Python run: a module or a file."""
    while index < len(argv) and argv[index].startswith("-"):
        if argv[index] == "-m":
            return _program(argv, start, index + 1, folders, cwd)
        index += 2 if argv[index] in PYTHON_VALUE_OPTIONS else 1
    return _program(argv, start, index, folders, cwd)


def _program(argv: list[str], start: int, index: int, folders: Folders, cwd: str) -> Recognised | None:
    found = _kind_of_program(argv, index) if index < len(argv) else None
    if found is None:
        return None
    kind, program = found
    following = argv[index + 1 : index + 2]
    args = index + 2 if following and following[0] in kind.programs[program] else index + 1
    package = folders.nearest(cwd) if not kind.python else None
    if isinstance(package, manifest.Package):
        kind = refined(kind, package.dependencies)
    below = ""
    if kind.takes_folder:
        below = positional(argv[args:], kind)
    elif program in kind.entries:
        below = os.path.dirname(argv[index])
    return Recognised(
        argv=argv,
        args=args,
        kind=kind,
        cwd=cwd,
        folder=os.path.realpath(os.path.join(cwd, below)),
        variables={},
        start=start,
        program=program,
        at=index,
    )


def _kind_of_program(argv: list[str], index: int) -> tuple[Kind, str] | None:
    program = os.path.basename(argv[index]).partition("@")[0]
    following = argv[index + 1] if index + 1 < len(argv) else ""
    known = of_program(program)
    if known is None:
        return None
    kind = known[1]
    subcommands = kind.programs[program]
    bare = "" in subcommands and (not following or following[0] in "-." or "/" in following)
    if following in subcommands or bare:
        return kind, program
    if ":" in subcommands and scripts.names_app(argv[index + 1 :]):
        return kind, program
    return None


def positional(args: list[str], kind: Kind) -> str:
    """Return the folder among a server's arguments, or "" where none is named."""
    skip = False
    for word in args:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in kind.value_flags or word in (*kind.port_flags, *kind.host_flags)
        else:
            return word
    return ""


def _listed(names: list[str]) -> str:
    if not names:
        return "are none"
    return ("is " if len(names) == 1 else "are ") + ", ".join(f"`{name}`" for name in names)

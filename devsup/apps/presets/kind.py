"""What differs from one kind of dev server to another, as data."""

from __future__ import annotations

from devsup.records import Record

__all__ = ["COMMON_FAILURES", "PYTHON_ENV", "PYTHON_FAILURES", "Kind"]

#: Log lines that tell why a server could not start, whatever it is, after those of its kind: (regular
#: expression, cause). Searched in the order given, in text without escape sequences. Beware of /ready in/i:
#: it matches "address already in use".
COMMON_FAILURES: tuple[tuple[str, str], ...] = (
    (r"EADDRINUSE|[Aa]ddress already in use|Port \d+ is already in use", "the port is already in use"),
    (r"(?:npm error |npm ERR! )?[Mm]issing script:", "package.json has no such script"),
    (
        r"ERR_PNPM_NO_SCRIPT|error Command \"[^\"]*\" not found|error: Script not found",
        "package.json has no such script",
    ),
    (
        r"(?m)^(?:\S+: )?(?:line )?(?:\d+: )*[^\s:]+: (?:command )?not found\s*$",
        "a program that the command needs is not installed",
    ),
    (r"zsh: command not found: ", "a program that the command needs is not installed"),
    (r"env: .*: No such file or directory", "a program that the command needs is not installed"),
    (
        r"Cannot find (?:module|package) ",
        "a module cannot be found: a package is not installed, or a path is wrong",
    ),
    (
        r"ENOSPC: System limit for number of file watchers",
        "the system's limit on watched files is reached (fs.inotify.max_user_watches)",
    ),
    (r"JavaScript heap out of memory", "Node.js ran out of memory"),
    (r"EACCES: permission denied", "a file or port may not be used: permission denied"),
    (r"error: unknown option", "the command has an option that its program does not know"),
)

#: Log lines of any Python program that could not start, after those of its kind: the last of a traceback.
PYTHON_FAILURES: tuple[tuple[str, str], ...] = (
    (
        r"(?m)^ModuleNotFoundError: ",
        "a module cannot be found: a package is not installed, or a path is wrong",
    ),
    (r"(?m)^ImportError: ", "a name cannot be imported"),
    (r"(?m)^(?:SyntaxError|IndentationError|TabError): ", "a file is not valid Python"),
    (
        r"(?m): No module named \S+$",
        "a module cannot be found: a package is not installed, or a path is wrong",
    ),
    (r"(?m)^[\w.]*(?:Error|Exception)(?:: |$)", "a Python exception ended it: the end of the log has it"),
)

#: Else Python keeps what is printed to a file back until there are 8 KiB of it.
PYTHON_ENV: tuple[tuple[str, str], ...] = (("PYTHONUNBUFFERED", "1"),)

#: The ports that most programs refuse.
_NO_PORTS: dict[int, str] = {}


class Kind(Record):
    """
    One kind of dev server. `docs/kinds.md` shows how to add one.

    ``programs`` maps a binary, or the module of a `python -m`, to the subcommands that make it a dev server:
    "" for none, ":" for a word such as `main:app` somewhere among its arguments. One without any is a name
    that a running server gives itself.
    """

    name: str
    programs: dict[str, tuple[str, ...]]
    #: Ports that the program refuses, and the service each is kept for.
    reserved_ports: dict[int, str] = _NO_PORTS

    # -- what it is called, and where it is found

    #: The name that the only app of this role in a project has.
    role: str | None = None
    #: Whether it has that name only where no app of another kind without this mark has the role.
    yields: bool = False
    #: Whether it stands beside another app of the same folder, and is meant only by its name.
    companion: bool = False
    #: The kind whose program it is, too: it is this one in a package with one of `dependencies`.
    refines: str | None = None
    dependencies: tuple[str, ...] = ()
    #: One of these beside the dependency makes a folder an app although no script names the program.
    marks: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ("dev", "start")
    #: Whether a script that does not name the program is thought to run it all the same (a custom server).
    custom_scripts: bool = False

    # -- how it is run

    #: The words that run an app without a script; by default the program and its subcommand. `{entry}` is
    #: the `module:name` in which one of `constructors` is called.
    run: tuple[str, ...] = ()
    #: Whether it is run by Python: from the project's virtual environment, not from `node_modules`.
    python: bool = False
    #: Files in which an app of a Python project may be made, and the calls that make one; without
    #: `constructors` the first file that is there counts.
    entries: tuple[str, ...] = ()
    constructors: tuple[str, ...] = ()
    #: Options that take a value, so that a folder among the arguments can be told from one.
    value_flags: frozenset[str] = frozenset()
    #: Whether an argument that is no option names the app's folder.
    takes_folder: bool = False
    exclusive_folder: bool = False
    #: Variables it gets unless the caller has them, and those it is kept from.
    set_env: tuple[tuple[str, str], ...] = ()
    unset_env: tuple[str, ...] = ()

    # -- how it is told its port

    default_port: int | None = None
    #: Variable for the port, where the command does not say it by a flag.
    port_env: str | None = None
    port_flags: tuple[str, ...] = ()
    #: Whether the port is always given by flag, not only where the script already has one.
    port_by_flag: bool = False
    #: Whether the port is an argument of its own: `8000`, `0.0.0.0:8000`.
    port_is_argument: bool = False
    #: Whether a script that says a port cannot be told another one behind it: of two the last does not count.
    port_once: bool = False
    #: Options behind the port with which it fails where it would move to another one.
    strict: tuple[str, ...] = ()
    #: Options for the address to listen on; without one the variable `HOST` is set.
    host_flags: tuple[str, ...] = ()

    # -- how one knows that it serves, or why it does not

    http: tuple[str, ...] = ()
    body: str | None = None
    #: Statuses that say "not yet".
    unready: tuple[int, ...] = ()
    root_header: str | None = None
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def program(self) -> str:
        """Return the binary that runs an app of this kind without a script."""
        return next(iter(self.programs))

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words that run an app of this kind without a script."""
        return self.run or (self.program, self.programs[self.program][0])

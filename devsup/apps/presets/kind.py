"""What differs from one kind of dev server to another, as data."""

from __future__ import annotations

from devsup.records import Record

__all__ = ["COMMON_FAILURES", "Kind"]

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


class Kind(Record):
    """
    One kind of dev server.

    ``programs`` maps the binary to the subcommands that make it a dev server ("" for none).
    ``value_flags`` are
    the options that take a value, so that a folder among the arguments can be told from one.
    """

    name: str
    programs: dict[str, tuple[str, ...]]
    #: Ports that the program refuses, and the service each is kept for.
    reserved_ports: dict[int, str]
    #: The name that the only app of this role in a project has.
    role: str | None = None
    default_port: int | None = None
    #: Variable for the port, where the command does not say it by a flag.
    port_env: str | None = None
    port_flags: tuple[str, ...] = ()
    #: Whether the port is always given by flag, not only where the script already has one.
    port_by_flag: bool = False
    value_flags: frozenset[str] = frozenset()
    #: Options for the address to listen on; without one the variable `HOST` is set.
    host_flags: tuple[str, ...] = ()
    exclusive_folder: bool = False
    unset_env: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    #: One of these beside the dependency makes a folder an app although no script names the program.
    marks: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ("dev", "start")
    http: tuple[str, ...] = ()
    body: str | None = None
    root_header: str | None = None
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def program(self) -> str:
        """Return the binary that runs an app of this kind without a script."""
        return next(iter(self.programs))

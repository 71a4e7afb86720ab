"""
How a port is given to a command: by flag, by variable, or not at all.

A `Recipe` is a command without its port; rendering it with one is pure, so a port chosen under the lock is
put into the very command that was validated before.
"""

from __future__ import annotations

from devsup.errors import UsageError
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.presets import Kind

__all__ = [
    "Recipe",
    "Taken",
    "check_reserved",
    "flag_at",
    "number",
    "read_port",
    "take_port",
    "without_port",
]

AUTO = "auto"
MAX_PORT = 65535


class Recipe(Record):
    """
    A command without its port, and how it is told one.

    ``flag`` goes in at ``at`` (the end if None), behind a `--` with ``dashes``, ``strict`` behind the port;
    else ``variable`` is set. Neither: the port cannot be given. With a ``host`` (which may be "") the port is
    an argument of its own, `host:port`. ``own`` is the port that the command has without being told.
    """

    argv: list[str]
    flag: str | None = None
    at: int | None = None
    dashes: bool = False
    variable: str | None = None
    own: int | None = None
    host: str | None = None
    strict: tuple[str, ...] = ()

    @property
    def fixed(self) -> bool:
        """Tell whether no other port than ``own`` can be given."""
        return self.flag is None and self.variable is None and self.host is None

    def render(self, port: int | None) -> tuple[list[str], dict[str, str | None]]:
        """Return the argv and the environment changes for ``port``."""
        if port is None or self.fixed or (port == self.own and not self.strict):
            return list(self.argv), {}
        if self.host is not None:
            given = [f"{self.host}:{port}" if self.host else str(port)]
        elif self.flag is None:
            return list(self.argv), {str(self.variable): str(port)}
        else:
            given = [self.flag, str(port), *self.strict]
        if self.at is not None:
            return [*self.argv[: self.at], *given, *self.argv[self.at :]], {}
        return [*self.argv, *(["--"] if self.dashes and "--" not in self.argv else []), *given], {}


def read_port(value: object) -> int | str | None:
    """Return the port that a caller gives: a number, "auto", or None. Here is what is allowed."""
    if value is None or value == AUTO:
        return AUTO if value == AUTO else None
    port = number(str(value)) if isinstance(value, (str, int)) else None
    if port is None:
        raise UsageError(
            f"`{value}` is no port: a number from 1 to {MAX_PORT}, or `auto`",
            hint="leave `--port` out for the usual port, or say `--port auto` for a free one",
        )
    return port


def check_reserved(kind: Kind, port: int | None) -> None:
    """Refuse a port that the server itself would refuse."""
    service = kind.reserved_ports.get(port or 0)
    if service is not None:
        raise UsageError(
            f"port {port} cannot be used: {kind.name} and browsers refuse it, it is reserved for {service}",
            hint="choose another port, or say `--port auto`",
        )


class Taken(Record):
    """
    A command whose port was taken out.

    ``port`` is what it said (0: any, None: nothing), ``at`` where that stood, ``host`` what stood before it.
    """

    argv: list[str]
    port: int | None = None
    at: int | None = None
    host: str = ""


def take_port(argv: list[str], start: int, kind: Kind) -> Taken:
    """
    Take the port, and the options that make the server keep to it, out of the arguments from ``start`` on.

    :raises UsageError: what it says is no port
    """
    left, port, at, host = list(argv[:start]), None, None, ""
    index = start
    while index < len(argv):
        value, used = flag_at(argv, index, kind)
        if used:
            at, port = len(left), _given(value, argv[index])
            host = argv[index].rpartition(":")[0] if kind.port_is_argument else ""
            index += used
            continue
        if argv[index] not in kind.strict:
            left.append(argv[index])
        index += 1
    return Taken(left, port, at, host)


def without_port(command: list[str], kind: Kind) -> list[str]:
    """Return ``command`` without its port: what starts of one server on different ports have in common."""
    left = []
    index = 0
    while index < len(command):
        _, used = flag_at(command, index, kind) if index else ("", 0)
        if not used and command[index] not in kind.strict:
            left.append(command[index])
        index += used or 1
    return left[:-1] if left and left[-1] == "--" else left


def flag_at(argv: list[str], index: int, kind: Kind) -> tuple[str, int]:
    """Return the value of the port flag at ``index`` and how many words it takes; 0 where there is none."""
    word = argv[index]
    if kind.port_is_argument:
        value = word.rpartition(":")[2]
        isolated = index == 0 or argv[index - 1] not in kind.value_flags
        return (value, 1) if value.isdecimal() and isolated and word[0] != "-" else ("", 0)
    for flag in kind.port_flags:
        if word == flag:
            return (argv[index + 1], 2) if index + 1 < len(argv) else ("", 1)
        if word.startswith(f"{flag}="):
            return word[len(flag) + 1 :], 1
        if len(flag) == 2 and word.startswith(flag) and word[2:].isdecimal():
            return word[2:], 1
    return "", 0


def number(text: str) -> int | None:
    """Return the port that ``text`` is, None for anything else."""
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= MAX_PORT:
        return int(text)
    return None


def _given(value: str, flag: str) -> int:
    port = 0 if value == "0" else number(value)
    if port is None:
        said = flag if value in flag else f"{flag} {value}".rstrip()
        raise UsageError(
            f"`{said}` names no port: a number from 1 to {MAX_PORT}", hint="correct the port in the command"
        )
    return port

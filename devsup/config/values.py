"""
What one value of a configuration may be: each function returns it as devsup uses it, or raises `Wrong`.

Pure functions; durations come back in seconds.
"""

from __future__ import annotations

from devsup import durations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "EXCLUSIVE",
    "NAME",
    "ON_LOST",
    "RESTARTS",
    "SCHEMES",
    "SIGNALS",
    "Wrong",
    "command",
    "duration",
    "environment",
    "fleet_name",
    "fleet_ttl",
    "fleet_url",
    "folder",
    "host",
    "names",
    "one_of",
    "path",
    "pattern",
    "port",
    "project",
    "size",
    "status",
    "switch",
    "texts",
]

#: What an app may be called; `apps.naming.is_name` says the same. In some dialects `$` alone would let a
#: last line end pass.
NAME = r"^(?![0-9]+$)[a-z0-9][a-z0-9_-]{0,62}(?!\n)$"
#: When a server that ended by itself is run again.
RESTARTS = ("no", "on-failure", "always")
#: Among what an app may be the only one.
EXCLUSIVE = ("fleet",)
#: What becomes of an exclusive app whose lease is lost.
ON_LOST = ("keep", "stop")
#: Signals that ask a process to end.
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

#: How an address of Redis begins.
SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")

#: Signs for which a command needs a shell.
_SHELL = frozenset("|&;<>()$`*?[]{}~#!\n")


class Wrong(ValueError):
    """A value that cannot be; ``allowed`` says what can, ``meant`` is what was probably wanted."""

    def __init__(self, allowed: list[str], meant: str | None = None, why: str | None = None) -> None:
        super().__init__(why or f"allowed: {', '.join(allowed)}")
        self.allowed = allowed
        self.meant = meant
        self.why = why


def project(value: Any) -> str:
    """Return the name of a project: any text that can be shown on one line."""
    if isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= 100:
        return value.strip()
    raise Wrong(["a text of one line"])


def one_of(value: Any, allowed: tuple[str, ...]) -> str:
    """Return one of the words ``allowed``."""
    if isinstance(value, str) and value in allowed:
        return value
    raise Wrong(list(allowed))


def port(value: Any) -> int | str:
    """Return a port, or "auto"."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65535):
        return value  # type: ignore[no-any-return] # one of the two
    meant = None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and 0 < int(value[:6]) <= 65535:
        meant = value  # the number, without quotes
    raise Wrong(["1 to 65535", '"auto"'], meant)


def duration(value: Any) -> float:
    """Return a duration in seconds; 0 switches what it is for off."""
    if isinstance(value, (str, int, float)):
        try:
            return durations.parse(value)
        except ValueError:
            pass
    raise Wrong(['"500ms"', '"30s"', '"15m"', '"2h"', "a number of seconds"])


def size(value: Any) -> int:
    """Return bytes of disk, from 64 KiB on; 0 is any number of them."""
    from devsup import bounds

    if isinstance(value, (str, int)) and not isinstance(value, bool):
        try:
            return bounds.size_of(str(value))
        except ValueError:
            pass
    raise Wrong(['"20MB"', '"512k"', '"1g"', "a number of bytes from 65536 on", "0 for no limit"])


def fleet_url(value: Any) -> str:
    """Return the name of a variable with its `$`, or an address of Redis that holds no password."""
    allowed = ['"$REDIS_URL": the name of a variable', '"redis://HOST:PORT/DB"', '"unix:///PATH"']
    if not isinstance(value, str):
        raise Wrong(allowed)
    if value.startswith("$"):
        name = value[1:].removeprefix("{").removesuffix("}")
        if name.isascii() and name.isidentifier() and value in (f"${name}", f"${{{name}}}"):
            return f"${name}"
        raise Wrong(allowed, why="what comes after the `$` is no name of a variable")
    scheme, sign, rest = value.partition("://")
    if not sign or scheme not in SCHEMES or not rest:
        # It is not repeated: what somebody has written in place of an address may be its password.
        raise Wrong(allowed, why=f"it is no address of Redis: allowed are {', '.join(allowed)}")
    query = rest.partition("?")[2]
    if ":" in rest.rpartition("@")[0] or "password=" in query:
        why = "a password does not belong into a file: name the variable that holds the whole address"
        raise Wrong(allowed, "$REDIS_URL", why=why)
    return value


def fleet_name(value: Any) -> str:
    """Return the name of a fleet: it is a part of every key."""
    import re

    if isinstance(value, str) and re.fullmatch(NAME, value):
        return value
    raise Wrong(["a-z, 0-9, `_` and `-`, at most 63, and not a number"])


def fleet_ttl(value: Any) -> float:
    """Return the seconds after which a host is lost: from one to a day."""
    seconds = duration(value)
    if 1 <= seconds <= 86_400:
        return seconds
    raise Wrong(['"1s" to "24h"'])


def command(value: Any) -> list[str]:
    """Return the words of a command; a text that needs a shell becomes `sh -c TEXT`."""
    expected = ['a text: "npm run dev"', 'a list of words: ["npm", "run", "dev"]']
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return _words(value.strip(), expected)
    words = value if isinstance(value, list) else []
    if words and all(isinstance(word, str) and "\0" not in word for word in words) and words[0].strip():
        return list(words)
    raise Wrong(expected)


def _words(text: str, expected: list[str]) -> list[str]:
    import shlex

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Wrong(expected, why=f"a quote is not closed ({str(error).lower()})") from error
    # `A=1 program` sets a variable: only a shell knows.
    if not words or _SHELL.intersection(text) or "=" in words[0]:
        return ["sh", "-c", text]
    return words


def environment(value: Any) -> dict[str, str]:
    """Return variables; numbers and booleans as the texts that they are in a file."""
    if not isinstance(value, dict):
        raise Wrong(['a table: {NAME = "value"}'])
    found = {}
    for name, content in value.items():
        if not name or "=" in name or "\0" in name:
            raise Wrong(["a variable's name without `=`"], why=f"`{name}` cannot be the name of a variable")
        text = str(content).lower() if isinstance(content, bool) else content
        text = str(text) if isinstance(text, (int, float)) else text
        if not isinstance(text, str) or "\0" in text:
            raise Wrong(["a text, a number, true or false"], why=f"`{name}` can be no list and no table")
        found[name] = text
    return found


def folder(value: Any) -> str:
    """Return a folder, as it is written."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise Wrong(['a folder, from the folder of this file: "apps/web"'])


def texts(value: Any) -> list[str]:
    """Return a list of texts; one text is a list of one."""
    given = [value] if isinstance(value, str) else value
    if isinstance(given, list) and all(isinstance(one, str) and one and "\0" not in one for one in given):
        return list(given)
    raise Wrong(["a text", "a list of texts"])


def names(value: Any) -> list[str]:
    """Return names of apps, each once."""
    try:
        return list(dict.fromkeys(texts(value)))
    except Wrong:
        raise Wrong(['names of apps: ["api", "db"]']) from None


def host(value: Any) -> str:
    """Return an address or name to listen on."""
    if isinstance(value, str) and value and value.isprintable() and not any(c in value for c in " /\\"):
        return value
    raise Wrong(['an address or name: "127.0.0.1", "0.0.0.0", "localhost"'])


def path(value: Any) -> str:
    """Return the path of a URL."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        if value.startswith("/"):
            return value
        raise Wrong(['a path that begins with `/`: "/health"'], f"/{value}" if "://" not in value else None)
    raise Wrong(['a path that begins with `/`: "/health"'])


def pattern(value: Any) -> str:
    """Return a regular expression."""
    import re

    expected = ['a regular expression: "ready on .*:3000"']
    if not isinstance(value, str) or not value:
        raise Wrong(expected)
    try:
        re.compile(value)
    except re.error as error:
        raise Wrong(expected, why=f"it is no regular expression: {error}") from error
    return value


def status(value: Any) -> int:
    """Return an HTTP status."""
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value
    raise Wrong(["100 to 599"])


def switch(value: Any) -> bool:
    """Return true or false."""
    if isinstance(value, bool):
        return value
    raise Wrong(["true", "false"])

"""
Which repository is this, for hosts that share nothing but it? As its remote says, without who asks for it.

Git's own files are read and no git is started, for `start` asks it: those of the worktree and the repository,
and what these include. Neither the user's own configuration nor conditional includes are. Reads only.
"""

from __future__ import annotations

import os

from devsup.apps import worktree
from devsup.records import Record
from devsup.smallfile import contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Origin", "choose", "entries", "find", "name_of"]

#: Files that include each other; git itself stops at ten.
_DEEPEST = 10
#: Schemes of addresses that name a host; another one's path means something on one machine alone.
_SCHEMES = frozenset(("ssh", "git", "http", "https", "git+ssh", "ssh+git", "ftp", "ftps"))
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b"}


class Origin(Record):
    """
    What a folder is on every host that has the repository: ``name``, None where nothing says it.

    ``ambiguous`` are the remotes where there are several, and git says of none that it is the one.
    """

    name: str | None
    ambiguous: Sequence[str] = ()


def find(folder: str) -> Origin:
    """Return what ``folder`` is, from its repository's remote and its place in it."""
    place = worktree.find(folder)
    if place.worktree is None or place.repository is None:
        return Origin(None)
    found = [*_read(f"{place.repository}/config", _DEEPEST)]
    chosen = choose(found, place.branch)
    if isinstance(chosen, list):
        return Origin(None, chosen)
    name = None if chosen is None else name_of(chosen)
    if name is None:
        return Origin(None)
    inside = os.path.relpath(folder, place.worktree)
    return Origin(name if inside == "." else f"{name}#{inside}")


def choose(found: Sequence[tuple[str, str]], branch: str | None) -> str | list[str] | None:
    """
    Return the address of the remote that the branch follows, else of `origin`, else of the only one.

    The names of all where none of these is; None where there is no remote. ``found`` is as of `entries`.
    """
    addresses: dict[str, str] = {}
    for key, value in found:
        if key.startswith("remote.") and key.endswith(".url"):
            addresses.setdefault(key[len("remote.") : -len(".url")], value)
    followed = dict(found).get(f"branch.{branch}.remote", "")
    for name in (followed, "origin"):
        if name in addresses:
            return addresses[name]
    return sorted(addresses) if len(addresses) > 1 else next(iter(addresses.values()), None)


def name_of(address: str) -> str | None:
    """
    Return `host/path` of a repository's address, however it is reached; None for a path of this machine.

    Neither user, password and port nor a `.git` at the end make it another one.
    """
    scheme, sign, rest = address.strip().partition("://")
    if sign:
        if scheme.lower() not in _SCHEMES:
            return None
        authority, _, path = rest.partition("/")
    else:
        # As scp writes it; with a slash before the colon it is a path.
        authority, sign, path = scheme.partition(":")
        if not sign or "/" in authority or authority[:1] == "[":
            return None
    host = authority.rpartition("@")[2].lower()
    host, _, port = host[1:].partition("]") if host[:1] == "[" else host.partition(":")
    if port and not port.removeprefix(":").isdecimal():
        return None  # it is the beginning of a password with a `/`
    parts = [part for part in path.partition("?")[0].split("/") if part]
    if not host or not parts:
        return None
    parts[-1] = parts[-1].removesuffix(".git")
    return "/".join([host, *(part for part in parts if part)])


def _read(path: str, depth: int) -> Iterator[tuple[str, str]]:
    try:
        raw = contents(path)
    except OSError:
        return
    for key, value in entries(os.fsdecode(raw or b"")):
        if key != "include.path":
            yield key, value
        elif depth > 0:
            there = os.path.join(os.path.dirname(path), os.path.expanduser(value))
            yield from _read(there, depth - 1)


def entries(text: str) -> list[tuple[str, str]]:
    """Return the keys and values of a file of git's, in their order: `remote.origin.url`. Never an error."""
    found: list[tuple[str, str]] = []
    section = ""
    for line in text.replace("\\\n", "").splitlines():
        line = line.strip()  # noqa: PLW2901 - nothing else of it counts
        if line[:1] == "[":
            head, _, line = line[1:].rpartition("]")  # noqa: PLW2901 - a key may follow on the line
            section = _section(head)
            line = line.strip()  # noqa: PLW2901 - as above
        if not line or line[0] in "#;":
            continue
        key, equals, value = line.partition("=")
        found.append((f"{section}.{key.strip().lower()}", _value(value.strip()) if equals else "true"))
    return found


def _section(head: str) -> str:
    name, quote, inner = head.partition('"')
    if not quote:
        return name.strip().lower()
    return f"{name.strip().lower()}.{_value(quote + inner)}"


def _value(text: str) -> str:
    """Return a value without its quotes, escapes and comment."""
    found, quoted, letters = "", False, iter(text)
    for letter in letters:
        if letter == "\\":
            escaped = next(letters, "")
            found += _ESCAPES.get(escaped, escaped)
        elif letter == '"':
            quoted = not quoted
        elif letter in "#;" and not quoted:
            return found.rstrip()
        else:
            found += letter
    return found if text.endswith('"') else found.rstrip()

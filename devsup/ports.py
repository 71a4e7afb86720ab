"""
Who listens where, and which port an app gets when nobody names one.

Only LISTEN counts: TIME_WAIT, a socket that is bound but does not listen, and an outgoing connection are no
conflict. Every answer is of one moment and advisory: the server's own bind decides. No state; safe from any
thread.
"""

from __future__ import annotations

# The C module: socket.py costs 3 ms, and this is needed only where the system tells nothing.
import _socket
import errno
import os
import sys

from devsup import identity, masking, system
from devsup.records import Record
from devsup.system import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from devsup.models import Row

__all__ = [
    "AUTO_FIRST",
    "BLOCKED",
    "Holder",
    "auto_range",
    "ephemeral",
    "holder",
    "is_free",
    "listening",
    "server_of",
]

#: Automatic ports begin here: above the defaults of servers and what people type by hand.
AUTO_FIRST = 10000
#: Where automatic ports end even if the system's outgoing connections begin later.
_AUTO_END = 32768
_PORT_END = 65536
#: Fewer ports than that are no range to choose from.
_ENOUGH = 256
_RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range"
#: Where nobody says: macOS, and RFC 6335.
_DYNAMIC = (49152, 65535)
#: Ports of the automatic range that browsers refuse to open (the "bad ports" of the Fetch standard).
BLOCKED = frozenset({10080})
#: Characters of a command line in a sentence; details carry the whole.
_BRIEF = 80
#: A loopback connect answers at once; a firewall that drops it must not hang a command.
_CONNECT_TIMEOUT = 0.2


class Holder(Record):
    """Who listens on a port. ``pid``, ``command`` and ``cwd`` are None where the system does not tell us."""

    port: int
    #: Empty where somebody is known to listen, but not who nor where.
    address: str
    pid: int | None
    command: str | None
    cwd: str | None
    #: The id of our server that it belongs to, None for a stranger.
    ours: str | None
    uid: int | None = None

    @property
    def name(self) -> str:
        """Return who it is, as a sentence has it."""
        if self.pid is not None:
            command = self.command or "unknown"
            where = f" in `{self.cwd}`" if self.cwd else ""
            brief = command if len(command) <= _BRIEF else f"{command[: _BRIEF - 1]}…"
            return f"pid {self.pid} (`{brief}`{where})"
        return "another process" if self.uid in (None, os.getuid()) else "a process of another user"

    def details(self) -> dict[str, Any]:
        """Return the holder as an error's details carry it."""
        return {"pid": self.pid, "command": self.command, "cwd": self.cwd, "ours": self.ours}


def listening(port: int) -> list[Listener]:
    """
    Return every listening socket on ``port``, whatever its address.

    :raises OSError: the system does not tell
    """
    return system.listeners(port)


def is_free(port: int) -> bool:
    """Tell whether nobody listens on ``port``, on any address."""
    try:
        if system.listeners(port):
            return False
        if system.sees_all_listeners():
            return True
    except OSError:
        pass
    # Only without an answer: while this bind is held, a server that binds without SO_REUSEADDR fails.
    return _can_bind(port) and not (sys.platform == "darwin" and _answers(port))


def _can_bind(port: int) -> bool:
    # SO_REUSEADDR: or TIME_WAIT looks like a conflict. Dual-stack: it sees listeners of every address.
    for family, address in ((_socket.AF_INET6, "::"), (_socket.AF_INET, "0.0.0.0")):  # noqa: S104 - to see everybody
        try:
            sock = _socket.socket(family, _socket.SOCK_STREAM)
        except OSError:  # a system without IPv6
            continue
        try:
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EADDRNOTAVAIL:
                continue
            return True  # forbidden below 1024: that says nothing of anybody using it
        else:
            return True
        finally:
            sock.close()
    return True


def _answers(port: int) -> bool:
    # macOS lets a bind to all addresses stand beside a listener on one.
    for family, address in ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1")):
        try:
            sock = _socket.socket(family, _socket.SOCK_STREAM)
        except OSError:
            continue
        try:
            sock.settimeout(_CONNECT_TIMEOUT)
            sock.connect((address, port))
        except OSError:
            continue
        else:
            return True
        finally:
            sock.close()
    return False


# -- who -------------------------------------------------------------------------------------------


def holder(port: int, rows: Iterable[Row]) -> Holder | None:
    """
    Return who listens on ``port``, None where nobody does. ``rows`` are the servers that may be ours.

    Of several listeners the first whose process can be found is named.
    """
    try:
        sockets = system.listeners(port)
    except OSError:
        sockets = []
    if not sockets:
        return None if is_free(port) else Holder(port, "", None, None, None, None)
    rows = list(rows)
    sock, pid = _find_process(sockets, rows)
    if pid is None:
        by_inode = {row.listener_inode: row.id for row in rows if row.listener_inode}
        return Holder(port, sock.address, None, None, None, by_inode.get(sock.inode), sock.uid)
    words = system.cmdline(pid)
    return Holder(
        port,
        sock.address,
        pid,
        masking.title(words) or None,
        system.cwd(pid),
        server_of(pid, sock, rows),
        sock.uid if sock.uid is not None else system.uid(pid),
    )


def _find_process(sockets: list[Listener], rows: list[Row]) -> tuple[Listener, int | None]:
    for sock in sockets:
        if sock.pid is not None:
            return sock, sock.pid
    by_inode = {sock.inode: sock for sock in sockets if sock.inode}
    # Our own listeners first: they are the likely ones, and reading all descriptors of a machine takes a
    # while.
    likely = [row.listener_pid for row in rows if row.listener_pid]
    for pid in (*likely, *(pid for pid in system.all_pids() if pid not in likely)):
        for inode in by_inode.keys() & system.socket_inodes(pid):
            return by_inode[inode], pid
    return sockets[0], None


def server_of(pid: int, sock: Listener, rows: Collection[Row]) -> str | None:
    """Return the id of the row whose tree ``pid`` is in: by its socket, its ancestors or its session."""
    for row in rows:
        if row.listener_inode and row.listener_inode == sock.inode:
            return row.id
    roots = {
        who.pid: row.id
        for row in rows
        for who in (row.guard, row.leader)
        if who and not identity.is_gone(who)
    }
    # A session or group cannot be named anew while a member lives, so its number is its first leader's.
    sessions = {row.leader.pid: row for row in rows if row.leader}
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        seen.add(pid)
        if pid in roots:
            return roots[pid]
        try:
            info = system.process(pid)
        except OSError:
            return None
        if info is None:
            return None
        for number in (info.sid, info.pgid):
            ours = sessions.get(number)
            if ours is not None and _first_of(number, ours, info.ticks):
                return ours.id
        pid = info.ppid
    return None


def _first_of(number: int, row: Row, ticks: int) -> bool:
    # Whoever has the leader's pid now must be the leader, and no member is older than it.
    assert row.leader is not None
    if ticks < row.leader.ticks:
        return False
    try:
        info = system.process(number)
    except OSError:
        return False
    return info is None or info.ticks == row.leader.ticks


# -- automatic ports -------------------------------------------------------------------------------


def ephemeral() -> tuple[int, int]:
    """Return the first and the last port that outgoing connections are given."""
    try:
        with open(_RANGE_FILE, "rb") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return _DYNAMIC
    return low, high


def auto_range() -> range:
    """
    Return the automatic ports: outside of what outgoing connections use, or one of these could sit on one.

    The same on every machine that has not changed these: 10000 up to where they begin, 32768 at most.
    """
    low, high = ephemeral()
    below, above = range(AUTO_FIRST, min(low, _AUTO_END)), range(max(high + 1, AUTO_FIRST), _PORT_END)
    # Where connections use everything nothing is better than this range.
    return next((one for one in (below, above) if len(one) >= _ENOUGH), range(AUTO_FIRST, _AUTO_END))

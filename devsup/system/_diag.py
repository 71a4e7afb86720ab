"""
The TCP sockets of this network namespace, by netlink or from /proc/net.

Each call is one snapshot that the kernel takes bucket by bucket: a socket that opens or closes meanwhile may
or may not be in it. No state between calls; safe in any thread.
"""

from __future__ import annotations

# The C module itself: socket.py makes enums of all its constants, 3 ms for the four that are used here.
import _socket
import errno
import os
import sys

from devsup.system._core import Connection, Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["by_netlink", "by_proc", "connections_by_netlink", "connections_by_proc"]

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER, _DIAG = 16, 72
_SKV6ONLY = 11
_ESTABLISHED, _TIME_WAIT, _LISTEN = 1, 6, 10

#: The kernel answers at once or not at all; a stalled emulation must not hang a command.
_ANSWER_TIMEOUT = 2.0
_MAPPED = bytes(10) + b"\xff\xff"


#: Where the low and the high byte of a 16 bit number lie; `struct` would be one more import.
_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)


def _half(data: bytes, start: int) -> int:
    return data[start + _LOW] | data[start + _HIGH] << 8


def by_netlink(port: int) -> list[Listener]:
    """
    Return the listeners on ``port`` (0: all), as the kernel's sock_diag gives them.

    :raises OSError: not available here
    """
    addresses: dict[bytes, str] = {}  # few are different
    return [_listener(addresses, *one) for one in _ask([(port, 0)], 1 << _LISTEN)]


def connections_by_netlink(port: int) -> list[Connection]:
    """
    Return the connections to ``port``, as the kernel's sock_diag gives them.

    :raises OSError: not available here
    """
    # Of a connection within this machine the end that was closed first waits, and that may be the client's.
    both = [(port, 0), (0, port)]
    found = []
    for data, _, start, _ in _ask(both, 1 << _ESTABLISHED | 1 << _TIME_WAIT):
        ends = data[start + 4] << 8 | data[start + 5], data[start + 6] << 8 | data[start + 7]
        found += _connection(port, *ends, data[start + 1])
    return found


def _connection(port: int, local: int, remote: int, state: int) -> list[Connection]:
    """Return the socket as a connection to ``port``, if it is one and counts."""
    if local == port:
        return [Connection(port, remote, state == _ESTABLISHED)]
    return [Connection(port, local, open=False)] if remote == port and state == _TIME_WAIT else []


def _ask(ports: list[tuple[int, int]], states: int) -> Iterator[tuple[bytes, memoryview, int, int]]:
    """Give where each socket with these (local, remote) ports and ``states`` stands in an answer."""
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    try:
        sock.settimeout(_ANSWER_TIMEOUT)
        for family in (_socket.AF_INET, _socket.AF_INET6):
            for local, remote in ports:
                sock.send(_request(family, local, remote, states))
                yield from _answers(sock)
    finally:
        sock.close()


def _request(family: int, local: int, remote: int, states: int) -> bytes:
    order = sys.byteorder
    return b"".join(
        (
            (_HEADER + 56).to_bytes(4, order),
            _SOCK_DIAG_BY_FAMILY.to_bytes(2, order),
            _NLM_F_REQUEST_DUMP.to_bytes(2, order),
            bytes(8),  # sequence, port id
            bytes((family, _socket.IPPROTO_TCP, 0, 0)),
            states.to_bytes(4, order),
            local.to_bytes(2, "big"),
            remote.to_bytes(2, "big"),
            bytes(44),  # the rest of the socket id: any
        )
    )


def _answers(sock: _socket.socket) -> Iterator[tuple[bytes, memoryview, int, int]]:
    while True:
        data = sock.recv(65536)
        if not data:
            raise OSError(errno.EPROTO, "netlink answered nothing")
        words = memoryview(data[: len(data) & ~3]).cast("I")  # every message and attribute is aligned to 4
        start = 0
        while start + _HEADER <= len(data):
            size, kind = words[start >> 2], _half(data, start + 4)
            if size < _HEADER or start + size > len(data):
                raise OSError(errno.EPROTO, "netlink answered nonsense")
            if kind in {_NLMSG_DONE, _NLMSG_ERROR}:
                code = int.from_bytes(data[start + 16 : start + 20], sys.byteorder, signed=True)
                if code < 0:
                    raise OSError(-code, os.strerror(-code))
                return
            if kind == _SOCK_DIAG_BY_FAMILY:
                yield data, words, start + _HEADER, start + size
            start += (size + 3) & ~3


def _listener(addresses: dict[bytes, str], data: bytes, words: memoryview, start: int, end: int) -> Listener:
    only: bool | None = None
    if data[start] == _socket.AF_INET6:
        raw = data[start + 8 : start + 24]
        attribute = start + _DIAG
        while attribute + 4 < end:
            if _half(data, attribute + 2) == _SKV6ONLY:
                only = data[attribute + 4] != 0
                break
            attribute += max(4, (_half(data, attribute) + 3) & ~3)
    else:
        raw = data[start + 8 : start + 12]
    address = addresses.get(raw)
    if address is None:
        address = addresses[raw] = _address(raw)
    inode, uid = words[(start + 68) >> 2], words[(start + 64) >> 2]
    return Listener(data[start + 4] << 8 | data[start + 5], address, only, inode, uid, None)


def _address(raw: bytes) -> str:
    if len(raw) == 16 and raw[:12] == _MAPPED:
        raw = raw[12:]
    return _socket.inet_ntop(_socket.AF_INET if len(raw) == 4 else _socket.AF_INET6, raw)


def by_proc(port: int) -> list[Listener]:
    """
    Return the listeners on ``port`` (0: all) from /proc/net/tcp and tcp6; v6only is unknown there.

    :raises OSError: /proc/net cannot be read
    """
    found = []
    for parts in _lines():
        address, _, number = parts[1].partition(b":")
        if int(parts[3], 16) == _LISTEN and port in {0, int(number, 16)}:
            found.append(Listener(int(number, 16), _hex_address(address), None, int(parts[9]), int(parts[7])))
    return found


def connections_by_proc(port: int) -> list[Connection]:
    """
    Return the connections to ``port`` from /proc/net/tcp and tcp6.

    :raises OSError: /proc/net cannot be read
    """
    found = []
    for parts in _lines():
        state = int(parts[3], 16)
        if state in (_ESTABLISHED, _TIME_WAIT):
            local, remote = (int(one.rpartition(b":")[2], 16) for one in parts[1:3])
            found += _connection(port, local, remote, state)
    return found


_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def _lines() -> Iterator[list[bytes]]:
    """Give the sockets: sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode, rest."""
    for path in _TABLES:
        try:
            table = open(path, "rb")
        except FileNotFoundError:
            if path == _TABLES[0]:
                raise
            return  # a kernel without IPv6
        with table:
            next(table, None)
            for line in table:
                parts = line.split(None, 10)
                if len(parts) >= 10:
                    yield parts


def _hex_address(text: bytes) -> str:
    # Words of 32 bits, each printed as a number of this machine.
    words = (int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    return _address(b"".join(words))

"""
Is it serving? A listening socket of the server's own tree, then, where its kind names one, an HTTP answer.

An open port decides nothing (a stranger's, or one that closes again), nor does a line of output. `find` is a
look at one moment, for guards and for commands. Nothing here blocks: a `Probe` is driven by the guard's poll
loop, from one thread.
"""

from __future__ import annotations

import _socket  # the C core of `socket`, whose enums cost a guard 3 ms and half a megabyte
import errno
import os
import re
import select

from devsup import system
from devsup import tree as trees
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.system import Listener
    from devsup.tree import Tree

__all__ = [
    "CONNECTED",
    "Answer",
    "Found",
    "Probe",
    "find",
    "find_any",
    "tls_helper_argv",
    "url_of",
    "without_colours",
]

#: Seconds for one HTTP answer. A first request may compile; a server that hangs is asked again on a new
#: connection.
PROBE_TIMEOUT = 5.0
#: Bytes of an answer that are read at most.
_ANSWER_LIMIT = 65_536
#: Bytes of the log that are searched for an address.
_LOG_WINDOW = 65_536
_URL = re.compile(rb"(https?)://(?:localhost|\d[\d.]+|\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{2,5})")
#: Node.js with `--inspect`: a socket that answers HTTP, is there before the server's, and is not it.
_DEBUGGER = re.compile(rb"Debugger listening on wss?://\S+?:(\d{2,5})/")
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Found(Record):
    """A listening socket and the process of the tree that holds it; 0 where somebody else does."""

    listener: Listener
    pid: int
    scheme: str = "http"
    #: The server's output names its port.
    named: bool = False


def find(
    tree: Tree,
    *,
    asked: int | None,
    log: str,
    strangers: frozenset[int] = frozenset(),
    default: int | None = None,
) -> Found | None:
    """
    Return the socket on which the tree serves, or None.

    Where it listens on several, the port asked for wins, then one that its output names, then the kind's
    ``default``, then the lowest. A debugger's socket is none, nor is one of a program that it only shares
    (adb), unless it has the port asked for.
    """
    infos = trees.members(tree, full=tree.parent is None)
    held = trees.listening(infos, ignore=strangers)
    if not held:
        return None
    text = _printed(log)
    named = {int(port): scheme.decode() for scheme, port in _URL.findall(text)}
    others = {int(port) for port in _DEBUGGER.findall(text)} - named.keys()
    shared = trees.kept(tree, infos)
    pairs = [
        (one, pid)
        for pid, ones in held.items()
        for one in ones
        if one.port == asked or (pid not in shared and one.port not in others)
    ]
    if not pairs:
        return None

    def rank(pair: tuple[Listener, int]) -> tuple[bool, bool, bool, int]:
        port = pair[0].port
        return (port != asked, port not in named, port != default, port)

    listener, pid = min(pairs, key=rank)
    return Found(listener, pid, named.get(listener.port, "http"), named=listener.port in named)


def find_any(port: int, log: str) -> Found | None:
    """Return the socket that listens on ``port``, whoever has it: a container's proxy is nobody's child."""
    ones = system.listeners(port)
    if not ones:
        return None
    named = {int(number): scheme.decode() for scheme, number in _URL.findall(_printed(log))}
    return Found(ones[0], 0, named.get(port, "http"), named=True)


def without_colours(output: bytes) -> bytes:
    """Return what a server has printed without its escape sequences."""
    return _ANSI.sub(b"", output)


def _printed(log: str) -> bytes:
    """Return the beginning of the server's output, without colours."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return without_colours(os.read(fd, _LOG_WINDOW))
    except OSError:
        return b""
    finally:
        os.close(fd)


def connect_address(listener: Listener) -> str:
    """Return the address at which a client on this machine reaches ``listener``."""
    return {"::": "::1" if listener.v6only else "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(  # noqa: S104
        listener.address, listener.address
    )


def url_of(listener: Listener, scheme: str = "http") -> str:
    """
    Return the URL that reaches ``listener`` and nothing else.

    ``localhost`` may mean ``::1`` or ``127.0.0.1``, so it is used only where both lead to this socket.
    """
    dual = listener.address == "::" and not listener.v6only
    host = "localhost" if dual else connect_address(listener)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.port}"


#: The status of a connection on which nothing was asked.
CONNECTED = 1


class Answer(Record):
    """What came back: an HTTP status, or 0 where it was no HTTP (``tls``: it may be TLS)."""

    status: int
    headers: bytes = b""
    body: bytes = b""
    tls: bool = False


class Probe:
    """
    One HTTP request, driven from outside: register ``fd`` for ``events``, call `step` when it is ready.

    Without a ``path`` it only connects. `step` returns None while there is more to wait for. The caller
    closes it, also when its time is over.
    """

    def __init__(self, listener: Listener, path: str | None, *, whole_body: bool) -> None:
        address = connect_address(listener)
        family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
        self._socket = _socket.socket(family, _socket.SOCK_STREAM)
        self._socket.setblocking(False)
        host = f"[{address}]" if ":" in address else address
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{listener.port}\r\nUser-Agent: devsup\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode()
        self._only_connect = path is None
        self._whole_body = whole_body
        self._received = b""
        self.events = select.POLLOUT
        try:
            self._socket.connect((address, listener.port))
        except BlockingIOError:
            pass
        except OSError:
            self._request = b""  # `step` reports it: an error of `connect` shows on the next call too

    @property
    def local_port(self) -> int:
        """The port at this end of the connection; 0 where there is none."""
        return int(self._socket.getsockname()[1])

    @property
    def fd(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection; more than once does no harm."""
        self._socket.close()

    def step(self) -> Answer | None:
        """Go on as far as possible without waiting."""
        try:
            if self.events == select.POLLOUT:
                code = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
                if code or not self._request:
                    return Answer(0)
                if self._only_connect:
                    return Answer(CONNECTED)
                self._request = self._request[self._socket.send(self._request) :]
                if not self._request:
                    self.events = select.POLLIN
                return None
            chunk = self._socket.recv(_ANSWER_LIMIT)
        except BlockingIOError:
            return None
        except OSError as error:
            # A TLS server that is spoken to in clear text may just hang up.
            return Answer(0, tls=error.errno == errno.ECONNRESET and self.events == select.POLLIN)
        self._received += chunk
        return self._judge(ended=not chunk)

    def _judge(self, *, ended: bool) -> Answer | None:
        text = self._received
        if text and not b"HTTP/".startswith(text[:5]):
            return Answer(0, tls=text[:1] == b"\x15")
        head, separator, body = text.partition(b"\r\n\r\n")
        if not separator:
            if not ended and len(text) < _ANSWER_LIMIT:
                return None
            return Answer(0, tls=not text)
        words = head.split(b" ", 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        refused = status == _CLEAR_TEXT_REFUSED
        if (self._whole_body or refused) and not ended and len(body) < _length(head):
            return None
        return Answer(status, head, body, tls=refused and b"HTTPS" in body)


#: Some TLS servers answer clear text with an HTTP error that says so.
_CLEAR_TEXT_REFUSED = 400


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return min(int(value), _ANSWER_LIMIT)
    return _ANSWER_LIMIT


def header(head: bytes, name: str) -> str | None:
    """Return the value of header ``name`` in a raw response head, or None."""
    wanted = name.lower().encode()
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == wanted:
            return value.strip().decode(errors="replace")
    return None


#: A TLS handshake needs OpenSSL, three megabytes that a guard would carry for ever: a short-lived helper does
#: it.
_TLS_HELPER = """
import socket, ssl, sys
host, port, path, seconds, status = sys.argv[1:]
port, seconds = int(port), float(seconds)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with socket.create_connection((host, port), seconds) as raw, context.wrap_socket(raw) as tls:
    tls.settimeout(seconds)
    tls.sendall(f"GET {path} HTTP/1.0\\r\\nHost: localhost:{port}\\r\\n\\r\\n".encode())
    answer = tls.recv(4096)
words = answer.split(None, 2)
sys.exit(0 if answer.startswith(b"HTTP/") and status in ("any", words[1].decode()) else 1)
"""


def tls_helper_argv(python: str, listener: Listener, path: str, *, status: int | None = None) -> list[str]:
    """Return the command that exits 0 if ``listener`` answers HTTP over TLS, with ``status`` where given."""
    return [
        python, "-I", "-S", "-c", _TLS_HELPER,
        connect_address(listener), str(listener.port), path, str(PROBE_TIMEOUT),
        "any" if status is None else str(status),
    ]  # fmt: skip


def still_listens(listener: Listener) -> bool:
    """Tell whether this very socket is still a listening one."""
    return any(one.inode == listener.inode for one in system.listeners(listener.port))

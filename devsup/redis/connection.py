"""
The thin client: `Connection` never waits, `Client` waits until a deadline; both say in words what went wrong.

A `Connection` goes by itself from its address to the moment it is up: the name is looked up (in a thread:
`getaddrinfo` cannot be told not to wait), each address tried in turn, TLS agreed on, then AUTH, HELLO 3,
CLIENT SETNAME and SELECT sent as one. Where HELLO is refused it goes on in RESP2. It never comes back once
closed: make a new one, which looks the name up anew. It has no clock either: whoever waits for it says for
how long, and when to `skip` an address that says nothing. TLS takes some 10 ms once to read whom to trust;
nothing else here ever makes a loop late.

A connection or client belongs to one thread at a time. No state is shared with others.
"""

from __future__ import annotations

import _socket  # the C core of `socket`, whose enums cost a guard 3 ms and half a megabyte
import errno
import os
import select
import time

from devsup.redis import lookup
from devsup.redis.failures import NO_TLS, failed, words
from devsup.redis.lookup import Lookup
from devsup.redis.resp import PENDING, ErrorReply, Parser, ProtocolError, Push, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from devsup.errors import FleetUnreachable
    from devsup.redis.address import Address
    from devsup.redis.failures import Cause
    from devsup.redis.tls import Channel

    Command = tuple[str | bytes | int, ...]

__all__ = ["DEFAULT_TIMEOUT", "Client", "Connection", "failed"]

#: Seconds for a call, its connection included: a Redis in the same region answers in a few milliseconds.
DEFAULT_TIMEOUT = 2.0
#: Seconds that each of several addresses gets at least to let a client connect.
_LEAST_SHARE = 0.5
_CHUNK = 65_536
#: Bytes read in one `advance`: a loop has more to do than to listen to one talker.
_GULP = 16 * _CHUNK

# The states, in the order they come; from each the next one or CLOSED.
_LOOKUP, _CONNECTING, _HANDSHAKE, _GREETING, _UP, _CLOSED = range(6)

_MISSING = {
    _LOOKUP: "its name was not found",
    _CONNECTING: "no connection",
    _HANDSHAKE: "no answer to TLS",
}


class Connection:
    """
    One connection to Redis, driven by the caller's `poll()`.

    Wait for ``events`` on ``fd``, then `advance`; both may be others after each `advance`. Replies come in
    the order of the commands; a `Push` stands for itself. SUBSCRIBE is answered by pushes alone (by an
    ErrorReply where it is refused), and is not to be sent where ``protocol`` is 2. What is sent before it is
    up is kept, and sent once the server has agreed to user, password and database.

    ``eager`` sends it together with those, which saves a round trip: where they are refused and the server
    lets strangers in, it may have done it all the same, for its default user or in its first database. So
    does ``first``, which is asked for what to send before all else, in the moment in which that goes out.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str | None = None,
        eager: bool = False,
        first: Callable[[], Sequence[Command]] | None = None,
    ) -> None:
        self._address = address
        self._cause: Cause | None = None
        self._parser = Parser()
        self._out = bytearray()
        self._queued = bytearray()
        self._greeting: list[str] = []
        self._name = name
        self._eager = eager or first is not None
        self._first = first
        self._socket: _socket.socket | None = None
        self._tls: Channel | None = None
        self._lookup: Lookup | None = None
        self._peers: list[tuple[int, bytes | tuple[Any, ...]]] = []
        self._failure: OSError | None = None
        self._state = _CONNECTING
        #: 3, or 2 where the server knows or allows no HELLO: there are no pushes then.
        self.protocol = 3
        self._begin()

    def _begin(self) -> None:
        address = self._address
        if address.path is not None:
            self._peers = [(_socket.AF_UNIX, os.fsencode(address.path))]
        elif known := lookup.known(address.host, address.port):
            self._peers = [*known]
        else:
            try:
                self._lookup = Lookup(address.host, address.port)
                self._state = _LOOKUP
            except OSError as error:  # no descriptor left
                self._end(error)
            return
        self._connect()

    # -- what a loop needs -------------------------------------------------------------------------

    @property
    def fd(self) -> int:
        """The descriptor to wait on; -1 once closed."""
        if self._lookup is not None:
            return self._lookup.fd
        return self._socket.fileno() if self._socket is not None else -1

    @property
    def events(self) -> int:
        """What to wait for: a mask for `poll()`."""
        if self._state == _CONNECTING:
            return select.POLLOUT
        if self._tls is not None and self._tls.unsent:
            return select.POLLIN | select.POLLOUT
        return select.POLLIN | (select.POLLOUT if self._out and self._state > _HANDSHAKE else 0)

    @property
    def is_up(self) -> bool:
        """Whether the server has agreed to user, password and database."""
        return self._state == _UP

    @property
    def waits_for(self) -> str:
        """What has not come yet, as words for whoever has waited long enough."""
        return _MISSING.get(self._state, "no answer")

    @property
    def closed_why(self) -> str | None:
        """Why nothing more will come, in words; None while something may."""
        return None if self._cause is None else words(self._address, self._cause)[0]

    def error(self) -> FleetUnreachable:
        """Return why it is closed as an error to raise."""
        return failed(self._address, self._cause or "the connection is still open")

    def close(self, why: str = "closed by this side") -> None:
        """Close it; more than once does no harm."""
        self._end(why)

    @property
    def alternatives(self) -> int:
        """How many more addresses there are to `skip` to."""
        return len(self._peers) if self._state == _CONNECTING else 0

    def skip(self) -> None:
        """Leave an address that says nothing for the next one; to be called where there is one."""
        self._failure = self._failure or TimeoutError(_MISSING[_CONNECTING])
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._connect()

    def send(self, *commands: Command) -> None:
        """Send ``commands``, or keep them until it is up; once closed they are forgotten."""
        data = b"".join(map(encode, commands))
        if self._state == _UP or (self._state == _GREETING and self._eager):
            self._out += data
            try:
                self._flush()
            except OSError:
                pass  # what was received before is read first; then `advance` finds it closed
        elif self._state != _CLOSED:
            self._queued += data

    def advance(self) -> list[object]:
        """Go on as far as possible without waiting; return what came in whole, in its order."""
        replies: list[object] = []
        try:
            if self._state == _LOOKUP:
                self._look()
            if self._state == _CONNECTING:
                self._await_connection()
            if self._state == _HANDSHAKE and (self._tls is None or self._tls.handshake()):
                self._greet()
            if self._state in {_GREETING, _UP}:
                self._talk(replies)
        except (OSError, ProtocolError) as error:
            self._end(error)
        return replies

    # -- the way up --------------------------------------------------------------------------------

    def _look(self) -> None:
        assert self._lookup is not None
        if not self._lookup.is_done():
            return
        done, self._lookup = self._lookup, None
        done.close()
        if done.error is not None:
            raise done.error
        self._peers = [*done.found]
        self._state = _CONNECTING
        self._connect()

    def _connect(self) -> None:
        """Begin with the next address; the first one's failure is the one to tell when none is left."""
        while self._peers:
            family, where = self._peers.pop(0)
            try:
                self._socket = _socket.socket(family, _socket.SOCK_STREAM)
                self._socket.setblocking(False)
                if family != _socket.AF_UNIX:
                    self._socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                self._socket.connect(where)
                return
            except BlockingIOError as error:
                if family != _socket.AF_UNIX:
                    return
                self._failure = self._failure or error  # its queue of callers is full
            except OSError as error:
                self._failure = self._failure or error
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        self._end(self._failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)))

    def _await_connection(self) -> None:
        while self._state == _CONNECTING and self._socket is not None:
            code = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if not code:
                try:
                    self._socket.getpeername()
                except OSError as error:
                    if error.errno == errno.ENOTCONN:
                        return
                    code = error.errno or errno.EIO
            if not code:
                if self._address.tls:
                    try:
                        from devsup.redis.tls import Channel

                        self._tls = Channel(self._socket, self._address)
                    except ImportError:
                        self._end(NO_TLS)
                        return
                    except ValueError as error:  # a host that no certificate can name
                        raise error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
                self._state = _HANDSHAKE
                return
            self._failure = self._failure or OSError(code, os.strerror(code))
            self._socket.close()
            self._socket = None
            self._connect()

    def _greet(self) -> None:
        address = self._address
        hello: list[tuple[str, Command]] = []
        if address.user or address.password:
            # On its own: HELLO takes it too, but where HELLO is refused what follows must not go unsigned.
            user = (address.user,) if address.user else ()
            hello.append(("AUTH", ("AUTH", *user, address.password or "")))
        hello.append(("HELLO", ("HELLO", 3)))
        if self._name:
            hello.append(("SETNAME", ("CLIENT", "SETNAME", self._name)))
        if address.db:
            hello.append(("SELECT", ("SELECT", address.db)))
        self._greeting = [what for what, _ in hello]
        self._out += b"".join(encode(command) for _, command in hello)
        if self._first is not None:
            self._out += b"".join(map(encode, self._first()))
        self._state = _GREETING
        if self._eager:
            self._release()

    def _release(self) -> None:
        self._out += self._queued
        self._queued.clear()

    # -- talking -----------------------------------------------------------------------------------

    def _talk(self, replies: list[object]) -> None:
        broken: OSError | None = None
        try:
            self._flush()
        except OSError as error:
            broken = error  # what the server said before it hung up tells more
        self._listen(replies)
        if broken is not None and self._state != _CLOSED:
            raise broken
        if self._state == _UP and self._out:
            self._flush()  # what waited for the greeting

    def _flush(self) -> None:
        channel = self._tls or self._socket
        assert channel is not None
        try:
            if self._tls is not None:
                self._tls.flush()
            while self._out:
                del self._out[: channel.send(self._out)]
        except BlockingIOError:
            pass

    def _listen(self, replies: list[object]) -> None:
        assert self._socket is not None
        left = _GULP
        while self._state != _CLOSED and (left > 0 or self._tls is not None):
            try:
                if self._tls is None:
                    data = self._socket.recv(_CHUNK)
                else:
                    data = self._tls.recv(_CHUNK, only_here=left <= 0)
            except BlockingIOError:
                return
            if not data:
                self._end("it closed the connection")
                return
            left -= len(data)
            self._parser.feed(data)
            while self._state != _CLOSED and (reply := self._parser.get()) is not PENDING:
                if self._greeting and not isinstance(reply, Push):
                    self._greeted(self._greeting.pop(0), reply)
                else:
                    replies.append(reply)
            # A short piece from a plain socket was all there is; TLS may hold more of what it has read.
            if len(data) < _CHUNK and self._tls is None:
                return

    def _greeted(self, what: str, reply: object) -> None:
        if isinstance(reply, ErrorReply):
            if (
                what == "HELLO"
                and reply.code in {"ERR", "NOPERM", "NOPROTO"}
                and "max number of clients" not in reply
            ):
                self.protocol = 2
            elif what != "SETNAME":
                self._end(reply)
                return
        if not self._greeting:
            self._state = _UP
            self._release()

    def _end(self, cause: Cause) -> None:
        if self._state == _CLOSED:
            return
        self._state = _CLOSED
        self._cause = cause
        if self._lookup is not None:
            self._lookup.close()
            self._lookup = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._tls = None
        self._out.clear()
        self._queued.clear()


class Client:
    """
    Commands to Redis and their replies, each call within its seconds; a context manager.

    It connects with the first call, in the same round trip as its commands (`Connection`, ``eager``). A call
    that fails closes the connection, and the next one makes a new one: nothing is sent twice by itself, as
    what was not answered may have been done all the same. Not for SUBSCRIBE and its like.
    """

    def __init__(
        self, address: Address, timeout: float = DEFAULT_TIMEOUT, *, name: str | None = "devsup"
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._name = name
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call would make a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, *args: str | bytes | int, timeout: float | None = None) -> object:
        """
        Return the reply to one command.

        :raises FleetUnreachable: Redis cannot be reached, is silent for ``timeout`` seconds, or refuses
        """
        (reply,) = self.pipeline([args], timeout)
        if isinstance(reply, ErrorReply):
            raise failed(self.address, reply)
        return reply

    def _open(self) -> Connection:
        """Return the connection; a new one where the server has closed it since the last call."""
        if self._connection is not None:
            self._connection.advance()
        if self._connection is None or self._connection.closed_why is not None:
            self._connection = Connection(self.address, name=self._name, eager=True)
        return self._connection

    def pipeline(self, commands: Sequence[Command], timeout: float | None = None) -> list[object]:
        """
        Send ``commands`` at once and return their replies in order; a refused one's is an ErrorReply.

        :raises FleetUnreachable: Redis cannot be reached, or did not answer all within ``timeout`` seconds
        """
        if not commands:
            return []
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        replies: list[object] = []
        try:
            connection = self._open()
            connection.send(*commands)
            while True:
                replies += (one for one in connection.advance() if not isinstance(one, Push))
                if len(replies) >= len(commands):
                    return replies
                if connection.closed_why is not None:
                    raise connection.error()
                if not _wait(connection, deadline):
                    late = f"{connection.waits_for} within {seconds:.1f} s"
                    raise failed(self.address, TimeoutError(late))
        except BaseException:
            # Also Ctrl-C: replies that come later would be taken for those of the next call.
            self.close()
            raise


def _wait(connection: Connection, deadline: float) -> bool:
    """Wait for the next thing to do; an address that says nothing gets its share of the time."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    others = connection.alternatives
    share = max(left / (others + 1), min(left, _LEAST_SHARE))
    poll = select.poll()
    poll.register(connection.fd, connection.events)
    if not poll.poll(share * 1000 + 1) and others:
        connection.skip()
    return True

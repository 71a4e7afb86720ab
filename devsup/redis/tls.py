"""
A socket whose bytes go through TLS, driven without waiting; loaded for `rediss://` alone.

Loading OpenSSL takes some 3 MiB. One thread at a time.
"""

from __future__ import annotations

import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from devsup.redis.address import Address

__all__ = ["Channel"]

_CHUNK = 65_536
_REQUIREMENTS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
#: Reading the authorities of the system takes 10 ms and more; a process has one fleet.
_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}


def _context(address: Address) -> ssl.SSLContext:
    """
    Return the settings for ``address``.

    :raises OSError: a file that it names cannot be read, or is no certificate
    """
    key = (
        address.ssl_cert_reqs,
        address.ssl_ca_certs,
        address.ssl_certfile,
        address.ssl_keyfile,
        address.ssl_check_hostname,
    )
    if key not in _contexts:
        context = ssl.create_default_context(cafile=address.ssl_ca_certs)
        context.check_hostname = address.ssl_check_hostname and address.ssl_cert_reqs != "none"
        context.verify_mode = _REQUIREMENTS[address.ssl_cert_reqs]
        if address.ssl_certfile is not None:
            # A key with a pass phrase would have OpenSSL ask for it on the terminal; it is refused.
            context.load_cert_chain(address.ssl_certfile, address.ssl_keyfile, password="")
        _contexts[key] = context
    return _contexts[key]


class Channel:
    """`send` and `recv` like a socket that does not wait, once `handshake` has said that it is done."""

    def __init__(self, raw: _socket.socket, address: Address) -> None:
        self._raw = raw
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = b""
        self._tls = _context(address).wrap_bio(self._incoming, self._outgoing, server_hostname=address.host)

    @property
    def unsent(self) -> bool:
        """Whether bytes wait here for the socket to take them."""
        return bool(self._unsent) or self._outgoing.pending > 0

    def handshake(self) -> bool:
        """
        Go on with the handshake; tell whether it is done.

        :raises OSError: it failed
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                try:
                    self._take_in()
                except BlockingIOError:
                    return False
            except ssl.SSLError:
                try:
                    self.flush()  # tells the server why
                except OSError:
                    pass
                raise
            else:
                self.flush()
                return True

    def send(self, data: bytes | bytearray) -> int:
        """Take ``data`` on its way and return how much of it; what the socket does not take waits here."""
        if self.unsent:
            self.flush()
            if self.unsent:
                raise BlockingIOError
        try:
            count = self._tls.write(data)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        self.flush()
        return count

    def recv(self, size: int, *, only_here: bool = False) -> bytes:
        """
        Return what came, b"" at the end; BlockingIOError where nothing has.

        With ``only_here`` nothing more is taken from the socket: what it still has, `poll()` tells of; what
        was taken and not returned, nothing does.
        """
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self.flush()
                if only_here:
                    raise BlockingIOError from None
                self._take_in()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def flush(self) -> None:
        """Hand the socket what waits, as far as it takes it."""
        while self._unsent or self._outgoing.pending:
            self._unsent = self._unsent or self._outgoing.read()
            try:
                self._unsent = self._unsent[self._raw.send(self._unsent) :]
            except BlockingIOError:
                return

    def _take_in(self) -> None:
        data = self._raw.recv(_CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

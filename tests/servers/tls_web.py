"""
`next dev --experimental-https`, Vite with a certificate: HTTPS only; plain HTTP gets no answer.

The certificate beside this file is self-signed, for `localhost`, and protects nothing.
"""

from __future__ import annotations

import os
import socket
import ssl

from stand_in import listen, obey, out, render, wanted_port


def handle(context: ssl.SSLContext, connection: socket.socket) -> None:
    """Answer one request."""
    connection.settimeout(5)
    try:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(render((200, {}, f"pid {os.getpid()}\n")))
    except OSError:
        pass  # not TLS, or gone
    finally:
        connection.close()


def main() -> None:
    """Serve TLS."""
    obey()
    port = wanted_port()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(os.path.dirname(os.path.abspath(__file__)), "localhost.pem"))
    listener = listen(port)
    out(f"- Local:         https://localhost:{port}", "✓ Ready in 285ms")
    while True:
        handle(context, listener.accept()[0])


main()

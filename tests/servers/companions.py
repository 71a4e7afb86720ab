"""
A server that starts programs which belong to the user: an editor from an error page, watchman, adb.

Each is a sleeping process in a session of its own, called as `--name` says (comm, argv[0] and the path it
was executed by): a link to the interpreter in `.companions/` of the current folder. `companion NAME PID` is
printed for each.

--name NAME  may be given several times (default `watchman`)
--hold       the first one holds the port, and nobody else does
"""

from __future__ import annotations

import os
import sys

from stand_in import flag, flags, listen, obey, out, serve, shown, sleep_forever, start, wanted_port

SLEEP = "import signal\nwhile True: signal.pause()"
HOLD = """
import socket, sys, signal
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    connection.close()
"""


def companion(name: str, code: str, *args: str) -> int:
    """Start a program that `ps` shows as ``name``."""
    os.makedirs(".companions", exist_ok=True)
    link = os.path.abspath(os.path.join(".companions", name))
    if not os.path.lexists(link):
        os.symlink(os.path.realpath(sys.executable), link)
    pid = start([link, "-I", "-S", "-c", code, *args], session=True, quiet=True)
    out(f"companion {name} {pid}")
    return pid


def main() -> None:
    """Start companions, then serve."""
    obey()
    port = wanted_port()
    listener = listen(port)
    names = flags("name") or ["watchman"]
    if flag("hold"):
        os.set_inheritable(listener.fileno(), True)
        companion(names.pop(0), HOLD, str(listener.fileno()))
        os.set_inheritable(listener.fileno(), False)
    for name in names:
        companion(name, SLEEP)
    out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
    if flag("hold"):
        listener.close()
        sleep_forever()
    serve(listener)


main()

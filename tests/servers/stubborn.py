"""
A server that ignores TERM, INT and HUP: only KILL ends it. No real one did; a hung one does.

--child  the leader obeys and the port's holder, its child, is the stubborn one
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import flag, listen, obey, out, python, serve, shown, start, wanted_port


def main() -> None:
    """Serve, whatever comes."""
    port = wanted_port()
    if flag("child"):
        obey()
        _, status = os.waitpid(start(python("stubborn.py", "--port", str(port))), 0)
        sys.exit(os.waitstatus_to_exitcode(status) % 256)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    listener = listen(port)
    out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
    serve(listener)


main()

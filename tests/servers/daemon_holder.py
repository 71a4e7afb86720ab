"""
A double-forked grandchild in its own session holds the port: what a badly behaved tool leaves behind.

The leader waits; nothing but the marker in its environment ties the grandchild to it.

--leave  the leader exits (0) as soon as the grandchild serves
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import flag, leave, listen, on, out, serve, shown, sleep_forever, wanted_port


def main() -> None:
    """Fork twice; the grandchild serves."""
    port = wanted_port()
    ready, done = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        listener = listen(port)
        out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
        os.write(done, b".")
        os.close(done)
        on(signal.SIGTERM, leave())
        serve(listener)
    os.waitpid(middle, 0)
    os.close(done)
    os.read(ready, 1)
    if flag("leave"):
        sys.exit(0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sleep_forever()


main()

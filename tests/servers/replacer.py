"""
Next.js whose config was edited: the listener is replaced by a new process, the top one stays.

Tree: this -> the listener. When the trigger file appears in the current folder the listener ends, the port is
closed for 0.2 s, and a new pid listens. The file is removed when that is done.

--trigger FILE  the trigger (default `replace`)
--gap S         how long the port is closed (default 0.2)
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import flag, listen, obey, out, pause, python, serve, shown, start, wanted_port


def main() -> None:
    """Keep one listener, or be it."""
    port = wanted_port()
    if flag("listener"):
        obey()
        listener = listen(port)
        out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
        serve(listener)
    trigger = flag("trigger", "replace")
    argv = python("replacer.py", "--listener", "--port", str(port))
    child = start(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        if os.path.exists(trigger):
            out("⚠ Found a change in next.config.mjs. Restarting the server to apply the changes...")
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            pause(float(flag("gap", "0.2")))
            child = start(argv)
            os.unlink(trigger)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            sys.exit(os.waitstatus_to_exitcode(status) % 256)
        pause(0.02)


main()

"""
A server that dies before it listens: a missing module, a broken setting.

--code N    exit code (default 1)
--signal N  die by this signal instead
--after S   when (default 0)
--line TEXT what it says last (default a Node error); may be given several times
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import err, flag, flags, out, pause


def main() -> None:
    """Say something and die."""
    out("> app@0.0.0 dev", "> server")
    pause(float(flag("after", "0")))
    err(*(flags("line") or ["Error: Cannot find module 'missing'"]))
    if flag("signal"):
        number = int(flag("signal"))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pause()
    sys.exit(int(flag("code", "1")))


main()

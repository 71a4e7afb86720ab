"""
Detach from the caller, then guard.

Run as a file by `devsup.guard.spawn`, with the isolated interpreter: ``python -I -S __main__.py HOME ID
GENERATION MODE LABEL``. Descriptor 3 is the pipe on which the caller hears of each step.
"""

from __future__ import annotations

import os
import sys


def detach() -> None:
    """Keep nothing of the caller: not a descriptor, not the parenthood, not the folder."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(folder):
        if int(name) > 3:
            try:
                os.close(int(name))
            except OSError:
                continue  # the listing's own descriptor
    # A caller that lives on (an agent's process) is not to collect the guard when it ends.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.set_inheritable(3, False)
    os.chdir("/")


if __name__ == "__main__":
    detach()
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from devsup.guard.beginning import main

    status = main(sys.argv[1:])
    # Everything is written and closed; who asked for the stop waits until this process has ended, and the
    # interpreter would take longer to tidy up its memory than the end of the server took.
    os._exit(status)

"""
pnpm 12: the script runs in a process group of its own, in the same session.

Tree: this -> a watchdog (own group), and the server (own group). TERM or INT to this pid is handed on to the
server's group; when this dies by KILL the watchdog's pipe closes and it kills that group.

--careless     neither hands on nor watches: only who looks beyond the group finds the server
--script NAME  the server to wrap (default `web`); other flags are handed on to it
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import err, flag, on, python, start


def watch(pipe: int, group: int) -> None:
    """Wait for the end of the wrapper, then kill what it leaves."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.read(pipe, 1)
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os._exit(0)


def main() -> None:
    """Wrap."""
    err(f"$ {flag('script', 'web')}")
    server = start(python(f"{flag('script', 'web')}.py", *sys.argv[1:]), group=True)
    if flag("careless"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    else:
        reading, writing = os.pipe()
        watchdog = os.fork()
        if watchdog == 0:
            os.setpgid(0, 0)
            os.close(writing)
            watch(reading, server)
        os.close(reading)
        on(signal.SIGTERM, lambda: os.killpg(server, signal.SIGTERM))
        on(signal.SIGINT, lambda: os.killpg(server, signal.SIGINT))
    _, status = os.waitpid(server, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


main()

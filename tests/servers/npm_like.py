"""
npm, npx, pnpm 10, `sh -c 'npm run dev'`: a wrapper that forwards nothing.

Tree: this (npm) -> a shell that waits -> the server; one group, one session. TERM to this pid alone ends it
at once and leaves the server serving; INT to it alone does nothing at all. A signal to the group ends
everybody.

--script NAME  the server to wrap (default `web`); other flags are handed on to it
--code-of-child  exit as the server did, instead of by the same signal (yarn 1)
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import flag, on, out, python, start


def main() -> None:
    """Wrap, or be the shell in the middle."""
    args = sys.argv[1:]
    if args[:1] == ["--shell"]:
        # dash stays as a parent and waits; a signal that comes to it alone ends it alone.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _, status = os.waitpid(start(python(f"{flag('script', 'web')}.py", *args[1:])), 0)
        sys.exit(os.waitstatus_to_exitcode(status) % 256)
    on(signal.SIGINT, lambda: None)
    out("", "> app@0.0.0 dev", f"> {flag('script', 'web')}", "")
    _, status = os.waitpid(start(python("npm_like.py", "--shell", *args)), 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and not flag("code-of-child"):
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code % 256)


main()

"""
`sh -c 'cd app && next dev'`, `env NAME=value npm run dev`: a parent that waits and forwards nothing.

-- COMMAND...  what it runs
--levels N     put so many more of itself in between (default 0)
"""

from __future__ import annotations

import os
import shutil
import signal
import sys

from stand_in import flag, python, start


def main() -> None:
    """Run the command below and exit as it did."""
    at = sys.argv.index("--")
    argv, levels = sys.argv[at + 1 :], int(flag("levels", "0"))
    if levels:
        argv = python("chain.py", "--levels", str(levels - 1), "--", *argv)
    else:
        argv[0] = shutil.which(argv[0]) or argv[0]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _, status = os.waitpid(start(argv), 0)
    sys.exit(os.waitstatus_to_exitcode(status) % 256)


main()

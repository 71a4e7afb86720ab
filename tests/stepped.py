"""
Run a devsup command, or a guard, that obeys the plan in `STEPS`; see `tests/steps.py`.

``python stepped.py ARGUMENT...`` is ``devsup ARGUMENT...``. Called by the file that `STEPS_SHIM` names, which
stands for the interpreter wherever that command starts a guard, it is the guard.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests.steps import install

GUARD = os.path.join("devsup", "guard", "__main__.py")


def guard(at: int) -> None:
    """Be what ``python FLAG... FILE ARGUMENT...`` would be; ``at`` is where that file stands."""
    del sys.path[0]
    sys.argv = sys.argv[at:]
    install("guard")
    runpy.run_path(sys.argv[0], run_name="__main__")


def command() -> None:
    """Be ``devsup ARGUMENT...``."""
    del sys.path[0]
    sys.argv[0] = "devsup"
    sys.executable = os.environ.get("STEPS_SHIM") or sys.executable
    # The background job of a shell ignores it, and so does all that it starts, tests too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    install("command")
    from devsup.__main__ import main

    main()


if __name__ == "__main__":
    # Behind the interpreter's flags: a command's own arguments come later and are no guard's file.
    place = next((at for at, word in enumerate(sys.argv[:4]) if word.endswith(GUARD)), 0)
    guard(place) if place else command()

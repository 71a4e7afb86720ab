"""
Next.js at its stop: on TERM it starts a helper in a session of its own, which outlives it by 0.2 s.

--helper S  how long the helper lives (default 0.2)
"""

from __future__ import annotations

import os
import signal
import sys

from stand_in import flag, listen, obey, on, out, pause, python, serve, shown, start, wanted_port


def main() -> None:
    """Serve, or be the helper."""
    if flag("flush"):
        pause(float(flag("flush")))
        sys.exit(0)
    obey()

    def leave_a_helper() -> None:
        start(python("detached_flush.py", "--flush", flag("helper", "0.2")), session=True, quiet=True)
        os._exit(0)

    on(signal.SIGTERM, leave_a_helper)
    port = wanted_port()
    listener = listen(port)
    out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
    serve(listener)


main()

"""
npm killed by hand: the leader ends while its child, of the same session, goes on serving.

--after S  when the leader ends, counted from the moment the child serves (default 0.2)
--code N   its exit code (default 0)
"""

from __future__ import annotations

import os

from stand_in import flag, listen, obey, out, pause, serve, shown, wanted_port


def main() -> None:
    """Fork; the child serves, the leader leaves."""
    port = wanted_port()
    ready, done = os.pipe()
    if os.fork() == 0:
        obey()
        listener = listen(port)
        out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
        os.write(done, b".")
        os.close(done)
        serve(listener)
    os.close(done)
    os.read(ready, 1)
    pause(float(flag("after", "0.2")))
    os._exit(int(flag("code", "0")))


main()

"""
Expo: tests its port by listening on it for a moment, closes it, and listens for good 1.3 s later.

--gap S    the time in between (default 1.3)
--blink S  how long the first one is open (default 0.02)
"""

from __future__ import annotations

import time

from stand_in import flag, listen, obey, out, pause, serve, shown, wanted_port


def main() -> None:
    """Blink, then serve."""
    obey()
    port = wanted_port(8081)
    out("Starting Metro Bundler")
    blink, began = listen(port), time.monotonic()
    pause(float(flag("blink", "0.02")))
    blink.close()
    out(f"The port was open for {time.monotonic() - began:.3f} s")
    pause(float(flag("gap", "1.3")))
    listener = listen(port)
    out("", f"Waiting on {shown('', port)}", "", "Logs for your project will appear below.")
    serve(listener)


main()

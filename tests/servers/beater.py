"""
A server that proves when it ran: every few milliseconds it adds `NAME MILLISECONDS` to a file.

The clock is that of the machine since its boot, so the beats of several hosts on it can be compared.

--beats FILE   where to; one write a beat, so beats of several servers do not mix
--name N       whose beats these are
--port P       where it listens
"""

from __future__ import annotations

import os
import threading
import time

from stand_in import flag, listen, obey, serve, wanted_port

EVERY = 0.004


def main() -> None:
    """Beat and serve."""
    obey()
    file = os.open(flag("beats"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    name = f"{flag('name')}.{os.getpid()}"

    def beat() -> None:
        while True:
            os.write(file, f"{name} {time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000}\n".encode())
            time.sleep(EVERY)

    threading.Thread(target=beat, daemon=True).start()
    serve(listen(wanted_port()))


main()

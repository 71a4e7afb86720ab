"""Next.js, Vite: the port is taken, so it quietly takes the next free one, at most ten further."""

from __future__ import annotations

import sys

from stand_in import err, listen, obey, out, serve, shown, wanted_port


def main() -> None:
    """Serve somewhere."""
    obey()
    wanted = wanted_port()
    for port in range(wanted, wanted + 11):
        try:
            listener = listen(port)
        except OSError:
            continue
        if port != wanted:
            err(f"⚠ Port {wanted} is in use by an unknown process, using available port {port} instead.")
        out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
        serve(listener)
    sys.exit(1)


main()

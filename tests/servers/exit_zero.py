"""
Next.js 13 to 15 and Expo 53: a failed start that exits with 0.

Serves if the port is free; on a taken one it says so and exits 0.

--always   fail though the port is free (Next.js 15 without an `app` folder: the port was open for a moment)
--expo     say it as Expo does ("Skipping dev server")
--code N   exit with N instead
"""

from __future__ import annotations

import sys

from stand_in import err, flag, listen, obey, out, pause, serve, shown, wanted_port


def main() -> None:
    """Fail politely."""
    obey()
    port = wanted_port()
    try:
        listener = listen(port)
    except OSError:
        if flag("expo"):
            out(f"› Port {port} is running node in another window", "  /elsewhere (pid 1)")
            err(
                "Input is required, but 'npx expo' is in non-interactive mode.",
                f"> Use port {port + 1} instead?",
            )
            out("› Skipping dev server")
        else:
            err("⨯ Failed to start server", f"Error: listen EADDRINUSE: address already in use :::{port}")
        sys.exit(int(flag("code", "0")))
    if flag("always"):
        pause(0.1)
        err("Couldn't find any `pages` or `app` directory. Please create one under the project root")
        sys.exit(int(flag("code", "0")))
    out(f"   - Local:        {shown('', port)}", " ✓ Ready in 661ms")
    serve(listener)


main()

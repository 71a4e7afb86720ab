"""
Next.js 16 that loses its folder's lock, or loads a broken config: "Ready", port open, then exit 1.

Connections are accepted and requests hang, as the loser's do.

--after S   how long it looks alive (default 1.1, the lock's retry time; a bad config takes 0.01)
--code N    its exit code (default 1; Next.js 15 says 0)
"""

from __future__ import annotations

import os
import time

from stand_in import err, flag, listen, out, serve, shown, wanted_port


def main() -> None:
    """Look ready, then leave."""
    port = wanted_port()
    listener = listen(port)
    out(
        "▲ Next.js 16.4.5 (Turbopack)",
        f"- Local:         {shown('', port)}",
        "✓ Ready in 285ms",
    )
    end = time.monotonic() + float(flag("after", "1.1"))

    def tick() -> None:
        if time.monotonic() >= end:
            err("⨯ Failed to load next.config.mjs, see more info here")
            os._exit(int(flag("code", "1")))

    serve(listener, answer=lambda _method, _path: None, tick=tick, tick_ms=5)


main()

"""
A small web server to show devsup on: `python -m devsup.demo.server`, on PORT, loopback only.

It answers 200 on every path, says so in its log, and exits with 0 on TERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["main"]

DEFAULT_PORT = 3000


class Page(BaseHTTPRequestHandler):
    """One page for everything."""

    server_version = "devsup-demo"

    def do_GET(self) -> None:
        """Answer."""
        body = json.dumps({"ok": True, "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Write one line for a request."""
        print(f" {format % args}", flush=True)


def main() -> int:
    """Serve until a signal comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port = int(os.environ.get("PORT") or DEFAULT_PORT)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    except OSError as error:
        print(f"Error: port {port}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"- Local:  http://127.0.0.1:{port}", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

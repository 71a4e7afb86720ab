"""
`expo start`: one process with Metro on 8081 or `--port` or RCT_METRO_PORT, never on PORT.

`/status` answers `packager-status:running` with the project's folder in a header; any other path is the
manifest. Its port opens for a moment first. On a taken port it asks, gets no answer, and skips (exit 1).
`CI=1` turns watching off and says so; an empty CI is a crash.

--localhost    listen on 127.0.0.1 only
--gap S        between the port test and the real listener (default 0.1; the real one takes 1.3)
--skip-code N  exit code on a taken port (default 1; Expo 53 says 0)
--stranger DIR answer as the Metro of another folder
"""

from __future__ import annotations

import os
import sys

from stand_in import err, flag, listen, obey, out, pause, serve, wanted_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from stand_in import Reply


def uri(path: str) -> str:
    """Return ``path`` as Metro writes it into a header (encodeURI)."""
    kept = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'();/?:@&=+$,#"
    return "".join(chr(byte) if byte in kept else f"%{byte:02X}" for byte in os.fsencode(path))


def bind(port: int, host: str) -> socket.socket:
    """Listen, or skip as Expo does."""
    try:
        return listen(port, host)
    except OSError:
        out(f"› Port {port} is running node in another window", "  /elsewhere (pid 1)")
        err(
            "Input is required, but 'npx expo' is in non-interactive mode.", f"> Use port {port + 1} instead?"
        )
        out("› Skipping dev server")
        sys.exit(int(flag("skip-code", "1")))


def main() -> None:
    """Serve as Metro."""
    obey()
    ci = os.environ.get("CI")
    if ci == "":
        err("GetEnv.NoBoolean:  is not a boolean.")
        sys.exit(1)
    port, host = wanted_port(8081, "RCT_METRO_PORT"), "127.0.0.1" if flag("localhost") else ""
    out(f"Starting project at {os.getcwd()}", "Starting Metro Bundler")
    if ci not in {None, "0", "false"}:
        out("Metro is running in CI mode, reloads are disabled. Remove CI=true to enable watch mode.")
    bind(port, "").close()
    pause(float(flag("gap", "0.1")))
    listener = bind(port, host)
    out("", f"Waiting on http://localhost:{port}", "", "Logs for your project will appear below.")
    root = uri(flag("stranger") or os.getcwd())

    def reply(_method: str, path: str) -> Reply:
        if path == "/status":
            return 200, {"X-React-Native-Project-Root": root}, "packager-status:running"
        return 200, {"Content-Type": "application/json"}, "{}"

    serve(listener, answer=reply)


main()

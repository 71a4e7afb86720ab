"""
A plain HTTP server: what `python -m http.server`, Vite or any small framework looks like from outside.

One process, 200 on every path, exit 0 on TERM. A taken port is an error (1).

--host H     listen there only: 127.0.0.1, ::1 or 0.0.0.0 (default: dual-stack, as Node)
--delay S    wait before it listens
--status N   answer this status everywhere
--lines N    print N numbered lines first
`/self` tells its surroundings as JSON, `/slow` never answers, `/exit?N` exits with N.
"""

from __future__ import annotations

from stand_in import answer, err, flag, listen, obey, out, pause, serve, shown, wanted_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stand_in import Reply


def main() -> None:
    """Serve."""
    obey()
    port, host, status = wanted_port(), flag("host"), int(flag("status", "200"))
    for number in range(int(flag("lines", "0"))):
        out(f"line {number}")
    pause(float(flag("delay", "0")))
    try:
        listener = listen(port, host)
    except OSError:
        err(f"Error: Port {port} is already in use")
        raise SystemExit(1) from None
    out(f"  ➜  Local:   {shown(host, port)}/")

    def reply(method: str, path: str) -> Reply | None:
        found = answer(method, path)
        return found if found is None or path.startswith("/self") else (status, *found[1:])

    serve(listener, answer=reply)


main()

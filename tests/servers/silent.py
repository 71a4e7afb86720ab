"""A hung server (stopped by SIGSTOP, spinning on a broken pipe): TCP is accepted, nothing answered."""

from __future__ import annotations

from stand_in import listen, obey, out, serve, shown, wanted_port


def main() -> None:
    """Accept and keep silent."""
    obey()
    port = wanted_port()
    listener = listen(port)
    out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
    serve(listener, answer=lambda _method, _path: None)


main()

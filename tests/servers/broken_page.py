"""Next.js with a syntax error in a page: the server is up and every page answers 500."""

from __future__ import annotations

from stand_in import err, listen, obey, out, serve, shown, wanted_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stand_in import Reply


def broken(_method: str, _path: str) -> Reply:
    """Fail to compile."""
    err("⨯ ./app/page.jsx:1:53", "Parsing ecmascript source code failed")
    return 500, {"Content-Type": "text/html"}, "<h1>500</h1>"


def main() -> None:
    """Serve errors."""
    obey()
    port = wanted_port()
    listener = listen(port)
    out(f"- Local:         {shown('', port)}", "✓ Ready in 285ms")
    serve(listener, answer=broken)


main()

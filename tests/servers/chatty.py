"""
A server with a lot to say: numbered lines on both streams, colours, a progress line, a coloured URL.

--lines N   how many lines (default 100)
--every MS  one line every so many milliseconds, for ever, instead of all at once
--long N    one more line of N characters
"""

from __future__ import annotations

from stand_in import err, flag, listen, obey, out, serve, wanted_port


def main() -> None:
    """Talk and serve."""
    obey()
    port = wanted_port()
    listener = listen(port)
    out(
        f"  \x1b[32m➜\x1b[39m  \x1b[1mLocal\x1b[22m:   \x1b[36mhttp://localhost:\x1b[1m{port}\x1b[22m/\x1b[39m"
    )
    print("building 1%\rbuilding 50%\rbuilding 100%", flush=True)
    every = int(flag("every", "0"))
    number = 0

    def line() -> None:
        nonlocal number
        (err if number % 2 else out)(f"line {number}")
        number += 1

    while not every and number < int(flag("lines", "100")):
        line()
    if flag("long"):
        out("x" * int(flag("long")))
    serve(listener, tick=line if every else None, tick_ms=every)


main()

"""Run two servers at once and follow one's log: ``devsup.aio.Supervisor`` in an event loop."""

from __future__ import annotations

import asyncio
import sys

from devsup.aio import Supervisor

#: Any server will do; this one takes its port from the environment.
CODE = """
import http.server, os
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""
SERVER = [sys.executable, "-u", "-c", CODE]


async def main() -> None:
    """Run the example in the project of the current folder."""
    devsup = Supervisor()
    # Both at once, and `one` twice: whoever comes second gets the same server.
    one, same, two = await asyncio.gather(
        devsup.start_server("one", command=SERVER, port="auto"),
        devsup.start_server("one", command=SERVER, port="auto"),
        devsup.start_server("two", command=SERVER, port="auto"),
    )
    print("same", one.server.pid == same.server.pid, "other", one.server.pid != two.server.pid)

    async with devsup.operation("one", purpose="smoke test") as server:
        host, port = "127.0.0.1", server.port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        print("answered", (await reader.readline()).decode().split()[1])
        writer.close()
        await writer.wait_closed()

    # A cursor misses nothing and brings nothing twice; `wait` returns as soon as there is something.
    page = await devsup.get_server_logs("one", lines=10)
    while "GET / HTTP" not in page.text and not page.ended:
        page = await devsup.get_server_logs("one", after=page.next_cursor, wait=5)
    print("listed", sorted(one.app or "" for one in (await devsup.list_servers()).servers))
    print("stopped", [result.outcome.value for result in (await devsup.cleanup()).results])


if __name__ == "__main__":
    asyncio.run(main())

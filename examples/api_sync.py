"""Start a server, work with it, read its log, stop it: ``devsup.Supervisor`` in a plain program."""

from __future__ import annotations

import sys
import urllib.request

from devsup import DevsupError, Supervisor

#: Any server will do; this one takes its port from the environment.
CODE = """
import http.server, os
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""
SERVER = [sys.executable, "-u", "-c", CODE]


def main() -> int:
    """Run the example in the project of the current folder."""
    devsup = Supervisor()
    try:
        started = devsup.start_server("demo", command=SERVER, port="auto")
    except DevsupError as error:  # one tree; the codes are those of the command line
        print(f"{error.code}: {error} (try: {error.hint})")
        return error.exit_code
    print("reused" if started.reused else "started", started.server.session, started.server.state.value)

    # A stop by somebody else waits for this block, for 5 s at most.
    with (
        devsup.operation("demo", purpose="smoke test") as server,
        urllib.request.urlopen(server.url or "") as answer,
    ):
        print("answered", answer.status)

    page = devsup.get_server_logs("demo", lines=1)
    print("logged", "GET / HTTP" in page.text)
    print("listed", [one.app for one in devsup.list_servers().servers])
    print(devsup.stop_server("demo").outcome.value)
    return 0


if __name__ == "__main__":
    sys.exit(main())

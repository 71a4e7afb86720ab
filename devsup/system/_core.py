"""
What both system modules answer with, and the one table of what this kernel can do.

Records are frozen. The table is filled in at the first question, once per process; a fork inherits it, which
is right, as a kernel does not change under a process. Threads may ask at once: both find the same answer.
"""

from __future__ import annotations

import os
import sys

from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CAPABILITY_NAMES",
    "Capabilities",
    "Listener",
    "ProcessInfo",
    "host_uuid",
    "system_control",
]

# A name, so that type checkers read the code for other platforms too.
_LINUX = sys.platform == "linux"
_DARWIN = sys.platform == "darwin"

#: Every column of the table, in the order of `Capabilities`.
CAPABILITY_NAMES = (
    *("pidfd", "pidfs", "sock_diag", "subreaper", "children_file", "boot_id"),
    *("collapse_range", "punch_hole", "inotify"),
)


class ProcessInfo(Record):
    """
    One process at one moment.

    ``state`` is the kernel's letter; `Z` and `X` mean that nothing of the process runs any more (a leader
    that has exited while its other threads go on is reported as sleeping). ``ticks`` is its start time, see
    `Identity`.
    """

    pid: int
    ppid: int
    pgid: int
    sid: int
    ticks: int
    state: str
    tty: int
    comm: str

    @property
    def dead(self) -> bool:
        """Whether only the exit status is left."""
        return self.state in "ZX"


class Listener(Record):
    """
    One listening TCP socket. IPv4-mapped addresses are given as IPv4.

    ``v6only`` and ``uid`` are None where the source does not say, ``pid`` too: the Linux sources name the
    inode only, and finding its process means reading every descriptor of the system.
    """

    port: int
    address: str
    v6only: bool | None
    inode: int
    uid: int | None
    pid: int | None = None


class Connection(Record):
    """
    A TCP connection to a local ``port``, from the port ``peer``.

    It is ``open``, or was closed within the last minute (TIME_WAIT, at whichever end of it is on this
    machine).
    """

    port: int
    peer: int
    open: bool


class Capabilities:
    """
    What this kernel lets us do. The only place that decides it, and the only one that remembers it.

    An answer is found when it is first asked for. A call that turns out to be refused later (a seccomp
    filter) says so with `lose`. ``DEVSUP_WITHOUT=pidfd,sock_diag`` takes away what it names, so that a test
    or a puzzled user can run every fallback on a kernel that has everything.

    * ``pidfd``: a descriptor that is one process for ever. Without: identity is checked right before `kill`.
    * ``pidfs``: a pidfd's inode is the process's own. Without: a pid reused within one tick looks the same.
    * ``sock_diag``: listening sockets by netlink. Without: /proc/net/tcp and tcp6.
    * ``subreaper``: orphans come to the guard. Without: they are found by session and marker.
    * ``children_file``: /proc/PID/task/TID/children. Without: a scan of all parents.
    * ``boot_id``: the kernel names this boot. Without: see `boot_id`.
    * ``collapse_range``, ``punch_hole``: the front of a file can go, or become a hole, where its filesystem
      does that. Without: see `devsup.bounds`.
    * ``inotify``: the kernel tells of a file that grows. Without: a timer looks at its size.
    """

    pidfd: bool
    pidfs: bool
    sock_diag: bool
    subreaper: bool
    children_file: bool
    boot_id: bool
    collapse_range: bool
    punch_hole: bool
    inotify: bool

    def __init__(self, detectors: dict[str, Callable[[], bool]]) -> None:
        self._detectors = detectors

    def __getattr__(self, name: str) -> bool:
        # Reached only while the instance has no answer of that name yet.
        if name not in CAPABILITY_NAMES:
            raise AttributeError(name)
        found = name not in _taken_away() and self._detectors[name]()
        self.__dict__[name] = found
        return found

    def lose(self, name: str) -> None:
        """Remember that ``name`` was refused."""
        self.__dict__[name] = False

    def forget(self) -> None:
        """Find everything out again; for tests that change ``DEVSUP_WITHOUT``."""
        for name in CAPABILITY_NAMES:
            self.__dict__.pop(name, None)

    def asdict(self) -> dict[str, bool]:
        """Return the whole table."""
        return {name: getattr(self, name) for name in CAPABILITY_NAMES}


def _taken_away() -> set[str]:
    return {name.strip() for name in os.environ.get("DEVSUP_WITHOUT", "").split(",")}


def system_control(name: str) -> str | None:
    """Return a textual value of `sysctl` (macOS, BSD), or None."""
    if _LINUX:
        return None
    import ctypes

    try:
        size = ctypes.c_size_t(256)
        text = ctypes.create_string_buffer(size.value)
        answer = ctypes.CDLL(None).sysctlbyname(name.encode(), text, ctypes.byref(size), None, 0)
    except (OSError, AttributeError):
        return None
    return text.value.decode(errors="replace") or None if answer == 0 else None


def host_uuid() -> str | None:
    """Return what names this Mac, also after its network gave it another host name; None elsewhere."""
    if not _DARWIN:
        return None
    import ctypes

    class Timespec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    uuid = (ctypes.c_ubyte * 16)()
    wait = Timespec(1, 0)
    try:
        answer = ctypes.CDLL(None).gethostuuid(uuid, ctypes.byref(wait))
    except (OSError, AttributeError):
        return None
    return bytes(uuid).hex() if answer == 0 else None

"""
The same answers as `linux`, from psutil and POSIX alone: macOS, and Linux where a test asks for it.

psutil is loaded at the first question that needs it (16 ms). What it cannot know is said where it matters:
start times are milliseconds of the clock, sockets of other users are not seen on macOS, and there is no
handle that is one process for ever. Every function may be called from any thread and after a fork.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from devsup.system._core import (
    Capabilities,
    Connection,
    Listener,
    ProcessInfo,
    host_uuid,
    system_control,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    import psutil

    from devsup.models import Identity

__all__ = [
    "CAPABILITIES",
    "all_pids",
    "become_subreaper",
    "boot_id",
    "children",
    "cmdline",
    "connections",
    "cwd",
    "environ",
    "exe",
    "has_exited",
    "listeners",
    "machine_id",
    "net_namespace",
    "now_ticks",
    "open_pidfd",
    "pid_namespace",
    "pid_namespaces",
    "pidfd_inode",
    "process",
    "sees_all_listeners",
    "send_signal",
    "set_title",
    "socket_inodes",
    "uid",
]

# A name, so that type checkers read the code for other platforms too.
_LINUX = sys.platform == "linux"
_PID_MAX = 0x7FFFFFFF


def _psutil() -> ModuleType:
    import psutil

    return psutil


def _ask(pid: int, question: Callable[[psutil.Process], Any]) -> Any:
    """Return the answer to ``question``, None where ``pid`` is gone or will not tell us."""
    import psutil

    try:
        return question(psutil.Process(pid))
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None


# -- one process -----------------------------------------------------------------------------------


def process(pid: int) -> ProcessInfo | None:
    """
    Return what runs under ``pid``, None where nothing does.

    :raises OSError: it cannot be told
    """
    import psutil

    if not 0 < pid <= _PID_MAX:
        return None
    try:
        seen = psutil.Process(pid)
        with seen.oneshot():
            state = _state(seen)
            return ProcessInfo(
                pid,
                seen.ppid(),
                _ask_posix(os.getpgid, pid, state),
                _ask_posix(os.getsid, pid, state),
                _ticks(seen),
                state,
                0 if state == "Z" else _terminal(seen),
                seen.name(),
            )
    except psutil.AccessDenied:
        raise PermissionError(errno.EACCES, "the process may not be looked at", str(pid)) from None
    except (psutil.NoSuchProcess, ProcessLookupError):
        return _absent(pid)


def _absent(pid: int) -> ProcessInfo | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    raise PermissionError(errno.EACCES, "the process is hidden or just being made", str(pid))


def _ask_posix(question: Callable[[int], int], pid: int, state: str) -> int:
    try:
        return question(pid)
    except ProcessLookupError:
        if state == "Z":  # macOS does not know them any more
            return 0
        raise


def _state(seen: psutil.Process) -> str:
    import psutil

    status = seen.status()
    if status == psutil.STATUS_ZOMBIE:
        # Only the first thread has exited (Linux): not dead yet.
        return "S" if _LINUX and seen.num_threads() > 1 else "Z"
    if status == psutil.STATUS_DEAD:
        return "X"
    letters = {psutil.STATUS_RUNNING: "R", psutil.STATUS_STOPPED: "T", psutil.STATUS_DISK_SLEEP: "D"}
    return letters.get(status, "S")


def _ticks(seen: psutil.Process) -> int:
    # The start that does not move with the clock, where psutil has one: it identifies its own objects by it
    # (Linux, macOS, NetBSD). Elsewhere the public time in milliseconds is the best there is: a step of the
    # clock makes a living process look like another one.
    try:
        start: float = seen._proc.create_time(monotonic=True)  # type: ignore[attr-defined]  # noqa: SLF001
    except (AttributeError, TypeError):
        start = seen.create_time()
    if _LINUX:
        return round(start * os.sysconf("SC_CLK_TCK"))
    return round(start * 1000)


def _terminal(seen: psutil.Process) -> int:
    # psutil's public answer is a path from a list that it makes once: a terminal opened since looks like
    # none. So the device's number is taken from where psutil has it, and the path only where that has moved.
    inner: Any = getattr(seen, "_proc", None)
    try:
        if _LINUX:
            return int(inner._parse_stat_file()["ttynr"])  # noqa: SLF001
        import psutil._psosx as mac

        column: int = mac.kinfo_proc_map["ttynr"]  # type: ignore[attr-defined]  # the stubs leave it out
        return max(0, int(inner._get_kinfo_proc()[column]))  # noqa: SLF001
    except (AttributeError, ImportError, LookupError, TypeError):
        return 1 if seen.terminal() else 0


def all_pids() -> list[int]:
    """Return the pids of every process we can see."""
    return [pid for pid in _psutil().pids() if pid > 0]


def children(pid: int) -> list[int]:
    """Return the pids of the children of ``pid``, zombies included; empty where it is gone."""
    # Not by `process_iter`: it remembers, and leaves out a pid that was given away since its last round.
    return [other for other in all_pids() if _ask(other, lambda seen: seen.ppid()) == pid]


def environ(pid: int) -> bytes | None:
    """Return the environment ``pid`` was executed with, NUL separated; None where it is gone or not ours."""
    variables = _ask(pid, lambda seen: seen.environ())
    if variables is None:
        return None
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items())


def cmdline(pid: int) -> list[str]:
    """Return the arguments of ``pid`` as it shows them now; empty for zombies and where it is gone."""
    words = list(_ask(pid, lambda seen: seen.cmdline()) or [])
    while words and not words[-1]:
        words.pop()
    return words


def cwd(pid: int) -> str | None:
    """Return the folder ``pid`` is in, None where that cannot be told."""
    return _ask(pid, lambda seen: seen.cwd()) or None


def exe(pid: int) -> str | None:
    """Return the program file ``pid`` runs, also when it was replaced since; None where it cannot be told."""
    path = _ask(pid, lambda seen: seen.exe()) or None
    return None if path is None else str(path).removesuffix(" (deleted)")


def uid(pid: int) -> int | None:
    """Return the real user of ``pid``."""
    found = _ask(pid, lambda seen: seen.uids().real)
    return None if found is None else int(found)


def socket_inodes(pid: int) -> set[int]:
    """Return the numbers that `listeners` gives to the listening sockets of ``pid``."""
    return {_token(pid, sock.fd, sock.laddr) for sock in _sockets_of(pid) if sock.status == "LISTEN"}


# -- signals ---------------------------------------------------------------------------------------


def open_pidfd(pid: int) -> int | None:
    """Return None: there are no pidfds here."""
    del pid
    return None


def has_exited(handle: int) -> bool:
    """Never called: there are no pidfds here."""
    raise NotImplementedError(handle)


def pidfd_inode(pid: int) -> int:
    """Return 0: there are no pidfds here."""
    del pid
    return 0


def send_signal(handle: int | None, who: Identity, signum: int) -> None:
    """
    Send ``signum`` to ``who``; ``handle`` is None here.

    The start time is read again and the pid is signalled. Between these two calls lies a window in which the
    process can end and its pid be given away; no system call closes it.

    :raises ProcessLookupError: it is gone
    :raises PermissionError: it is another user's
    """
    del handle
    # It also keeps 0 and -1 from `kill`, for which they are a group and everybody: no process has them.
    info = process(who.pid)
    if info is None or info.ticks != who.ticks:
        raise ProcessLookupError(errno.ESRCH, "no such process")
    os.kill(who.pid, signum)


def become_subreaper() -> bool:
    """Return False: orphans go to process 1 here."""
    return False


def set_title(text: str) -> None:
    """Do nothing: the name of a process is its program's here."""
    del text


def now_ticks() -> int:
    """Return the present moment in the unit of ``ProcessInfo.ticks``."""
    if _LINUX:
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    return round(time.time() * 1000)


# -- sockets ---------------------------------------------------------------------------------------


def listeners(port: int = 0) -> list[Listener]:
    """
    Return the listening TCP sockets that we may see, or those on ``port``.

    There is no inode here: the number stands for process, descriptor and address, and lives as long as they
    do.
    """
    return [
        Listener(
            sock.laddr.port, _plain(sock.laddr.ip), None, _token(pid or 0, sock.fd, sock.laddr), None, pid
        )
        for pid, sock in _sockets("LISTEN")
        if port in {0, sock.laddr.port}
    ]


def connections(port: int) -> list[Connection]:
    """
    Return the TCP connections to ``port`` that we may see, also those just closed.

    On macOS those of our own processes: the ones of a server are among them.
    """
    found = []
    for _, sock in _sockets("ESTABLISHED", "TIME_WAIT"):
        peer = sock.raddr.port if sock.raddr else 0
        if sock.laddr.port == port:
            found.append(Connection(port, peer, sock.status == "ESTABLISHED"))
        elif peer == port and sock.status == "TIME_WAIT":
            found.append(Connection(port, sock.laddr.port, open=False))
    return found


def sees_all_listeners() -> bool:
    """Tell whether `listeners` knows the sockets of other users too."""
    return _LINUX or os.geteuid() == 0


def _sockets(*states: str) -> list[tuple[int | None, Any]]:
    """Return the TCP sockets in ``states`` that we may see, with the processes that hold them."""
    import psutil

    try:
        everyones = psutil.net_connections("tcp")
    except (psutil.Error, OSError):  # macOS shows all of them to root only
        return [(pid, sock) for pid in all_pids() for sock in _sockets_of(pid) if sock.status in states]
    return [(sock.pid, sock) for sock in everyones if sock.status in states]


def _sockets_of(pid: int) -> list[Any]:
    def ask(seen: psutil.Process) -> list[Any]:
        look = getattr(seen, "net_connections", None) or seen.connections  # renamed in psutil 6
        return [*look("tcp")]

    return _ask(pid, ask) or []


def _token(pid: int, handle: int, address: Any) -> int:
    from binascii import crc32

    return pid << 32 | crc32(f"{handle} {_plain(address.ip)} {address.port}".encode())


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:") if address.count(".") == 3 else address


# -- where we are ----------------------------------------------------------------------------------

_constants: dict[str, str] = {}


def boot_id() -> str:
    """
    Return what names this boot of the kernel; `init-?` where nothing does.

    The boot time is no name: it moves with the clock.
    """
    known = _constants.get("boot")
    if known is None:
        known = system_control("kern.bootsessionuuid") if CAPABILITIES.boot_id else None
        if known is None and CAPABILITIES.boot_id:
            known = _first_line("/proc/sys/kernel/random/boot_id")
        known = _constants["boot"] = known or "init-?"
    return known


def machine_id() -> str:
    """Return what names this machine: its id where it has one, else the host's name."""
    known = _constants.get("machine")
    if known is None:
        known = host_uuid() or _first_line("/etc/machine-id") or system_control("kern.hostuuid")
        known = _constants["machine"] = known or os.uname().nodename.replace("/", "-") or "localhost"
    return known


def _first_line(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.readline().decode(errors="replace").strip() or None
    except OSError:
        return None


def pid_namespace() -> str:
    """Return `-`: there is one."""
    return "-"


def pid_namespaces() -> dict[str, int | None] | None:
    """Return None: not all can be seen."""
    return None


def net_namespace() -> str:
    """Return `-`: there is one."""
    return "-"


def _can_boot_id() -> bool:
    return bool(system_control("kern.bootsessionuuid") or _first_line("/proc/sys/kernel/random/boot_id"))


CAPABILITIES = Capabilities(
    {
        "pidfd": lambda: False,
        "pidfs": lambda: False,
        "sock_diag": lambda: False,
        "subreaper": lambda: False,
        "children_file": lambda: False,
        "boot_id": _can_boot_id,
        "collapse_range": lambda: False,
        "punch_hole": lambda: False,
        "inotify": lambda: False,
    }
)

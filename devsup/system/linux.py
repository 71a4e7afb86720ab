"""
Processes and namespaces of Linux, read from /proc and pidfds at the moment of the question.

Nothing that can change is kept: two calls may see two processes under one pid, and only `devsup.identity`
tells them apart. Kept per process are the boot, the machine and what the kernel can do. Every function may be
called from any thread and after a fork.

A process that is not there is None (or empty); one that we may not read raises PermissionError, so that
nobody takes "hidden" for "gone".
"""

from __future__ import annotations

import errno
import os
import select
import time

from devsup.errors import UnsupportedPlatform
from devsup.system import _diag
from devsup.system._core import Connection, Listener, ProcessInfo
from devsup.system._kernel import CAPABILITIES, EXHAUSTED, REFUSED, first_line, read

TYPE_CHECKING = False
if TYPE_CHECKING:
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

_PID_MAX = 0x7FFFFFFF
#: The pid namespace of the machine itself, above all others (PROC_PID_INIT_INO of the kernel).
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
#: Of /proc/PID/task, whatever the thread's number: an only thread has the number of its process.
_LINKS_OF_ONE_THREAD = 3
#: The initial time namespace (PROC_TIME_INIT_INO of the kernel).
_FIRST_TIME_NAMESPACE = 0xEFFFFFFA


# -- one process -----------------------------------------------------------------------------------


def process(pid: int) -> ProcessInfo | None:
    """
    Return what runs under ``pid``, None where nothing does.

    :raises OSError: it cannot be told: hidden (hidepid), no descriptor left, ...
    """
    if not 0 < pid <= _PID_MAX:
        return None
    if not _own_proc:
        _check_proc()
    try:
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except FileNotFoundError:
        return _absent(pid)
    try:
        raw = os.read(handle, 2048)
    except ProcessLookupError:
        return None
    finally:
        os.close(handle)
    # The name stands in parentheses and may itself hold blanks and parentheses.
    end = raw.rindex(b")")
    rest = raw[end + 2 :].split(None, 20)
    state = rest[0].decode()
    if state == "Z" and int(rest[17]) > 1:
        # Only the first thread has exited (or the last ones are still closing sockets): not dead yet.
        state = "S"
    name = os.fsdecode(raw[raw.index(b"(") + 1 : end])
    return ProcessInfo(
        pid, int(rest[1]), int(rest[2]), int(rest[3]), int(rest[19]), state.upper(), int(rest[4]), name
    )


def _absent(pid: int) -> ProcessInfo | None:
    # With hidepid=2 a stranger's folder "does not exist": signal 0 tells it from one that is gone.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    raise PermissionError(errno.EACCES, "the process is hidden or just being made", f"/proc/{pid}")


_own_proc = False


def _check_proc() -> None:
    # In a pid namespace without a /proc of its own, /proc/7 is somebody else's 7: everything below would lie.
    global _own_proc
    try:
        shown = os.readlink("/proc/self")
    except OSError as error:
        raise UnsupportedPlatform(
            f"/proc cannot be read: {error.strerror}", hint="mount /proc: devsup knows processes by it"
        ) from error
    if shown != str(os.getpid()):
        raise UnsupportedPlatform(
            f"/proc shows another pid namespace: it calls this process {shown}, its pid is {os.getpid()}",
            hint="mount a /proc of this namespace, for example by `unshare --mount-proc`",
        )
    _own_proc = True


def all_pids() -> list[int]:
    """Return the pids of every process we can see."""
    if not _own_proc:
        _check_proc()
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def children(pid: int) -> list[int]:
    """
    Return the pids of the children of ``pid``, zombies included; empty where it is gone.

    A child may be missed when a sibling exits while this reads (the kernel says so of its file): who needs
    all of them asks until nothing changes.
    """
    if not CAPABILITIES.children_file:
        return _children_by_scan(pid)
    found: list[int] = []
    folder = f"/proc/{pid}/task"
    try:
        # Its links are two and one for each thread: listing them costs more than all the rest.
        tasks = [str(pid)] if os.stat(folder).st_nlink == _LINKS_OF_ONE_THREAD else os.listdir(folder)
    except OSError:
        return found
    for task in tasks:
        try:
            found.extend(map(int, read(f"{folder}/{task}/children").split()))
        except OSError:  # this thread has ended; its children went to another one
            continue
    return found


def _children_by_scan(pid: int) -> list[int]:
    found = []
    for other in all_pids():
        try:
            info = process(other)
        except OSError:
            continue
        if info is not None and info.ppid == pid:
            found.append(other)
    return found


def environ(pid: int) -> bytes | None:
    """Return the environment ``pid`` was executed with, NUL separated; None where it is gone or not ours."""
    try:
        return read(f"/proc/{pid}/environ")
    except OSError:
        return None


def cmdline(pid: int) -> list[str]:
    """Return the arguments of ``pid`` as it shows them now; empty for zombies and where it is gone."""
    try:
        raw = read(f"/proc/{pid}/cmdline").rstrip(b"\0")  # a rewritten title is padded with NULs
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0")] if raw else []


def cwd(pid: int) -> str | None:
    """Return the folder ``pid`` is in, None where that cannot be told."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def exe(pid: int) -> str | None:
    """Return the program file ``pid`` runs, also when it was replaced since; None where it cannot be told."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return None


def uid(pid: int) -> int | None:
    """Return the real user of ``pid``: not the owner of /proc/PID, which may be root for ours too."""
    try:
        status = read(f"/proc/{pid}/status")
    except OSError:
        return None
    return int(status[status.index(b"\nUid:") + 5 :].split(None, 1)[0])


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of the sockets that ``pid`` holds open; empty where it is gone or not ours."""
    folder = f"/proc/{pid}/fd"
    try:
        handles = os.listdir(folder)
    except OSError:
        return set()
    found = set()
    for handle in handles:
        try:
            target = os.readlink(f"{folder}/{handle}")
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


# -- signals ---------------------------------------------------------------------------------------


def open_pidfd(pid: int) -> int | None:
    """
    Return a descriptor of the process ``pid``, None where the kernel has no such thing.

    :raises ProcessLookupError: no process has this pid (a thread may)
    """
    if not CAPABILITIES.pidfd:
        return None
    try:
        return os.pidfd_open(pid)
    except OverflowError:
        raise ProcessLookupError(errno.ESRCH, "no such process") from None
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:  # no pid, or the number is a thread's now
            raise ProcessLookupError(errno.ESRCH, "no such process") from None
        if error.errno in REFUSED:
            CAPABILITIES.lose("pidfd")
            CAPABILITIES.lose("pidfs")
            return None
        raise


def has_exited(handle: int) -> bool:
    """Tell whether the process of the pidfd ``handle`` has ended, with all its threads; zombies have."""
    waiter = select.poll()
    waiter.register(handle, select.POLLIN)
    return bool(waiter.poll(0))


def pidfd_inode(pid: int) -> int:
    """Return the number that only this process ever has; 0 where there is none or ``pid`` is gone."""
    if not CAPABILITIES.pidfs:
        return 0
    try:
        handle = open_pidfd(pid)
    except ProcessLookupError:
        return 0
    if handle is None:
        return 0
    try:
        return os.fstat(handle).st_ino
    finally:
        os.close(handle)


def send_signal(handle: int | None, who: Identity, signum: int) -> None:
    """
    Send ``signum`` to ``who`` through its pidfd ``handle``, which the caller has verified.

    Without one the start time is read again and the pid is signalled. Between these two calls lies a window
    of some microseconds in which the process can end and its pid be given away; no system call closes it.

    :raises ProcessLookupError: it is gone
    :raises PermissionError: it is another user's
    """
    if handle is not None:
        # The guard has `signal` loaded; the CLI pays for it only when it signals.
        from signal import pidfd_send_signal

        try:
            pidfd_send_signal(handle, signum)
            return
        except OSError as error:
            # A filter that knows only one of the two calls. `kill` below says whether it is ours.
            if error.errno not in {errno.ENOSYS, errno.EPERM}:
                raise
    # It also keeps 0 and -1 from `kill`, for which they are a group and everybody: no process has them.
    info = process(who.pid)
    if info is None or info.ticks != who.ticks:
        raise ProcessLookupError(errno.ESRCH, "no such process")
    os.kill(who.pid, signum)


def become_subreaper() -> bool:
    """Have orphans of this process's tree given to it. False where that cannot be; loads ctypes."""
    if CAPABILITIES.subreaper:
        import ctypes

        set_child_subreaper = 36
        if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
            CAPABILITIES.lose("subreaper")
    return CAPABILITIES.subreaper


def set_title(text: str) -> None:
    """Give this process a name for `ps` (15 bytes of it are kept); the command line stays as it is."""
    try:
        fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, text.encode(errors="replace")[:15])
    except OSError:
        return
    finally:
        os.close(fd)


def now_ticks() -> int:
    """Return the present moment in the unit of ``ProcessInfo.ticks``."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 1_000_000_000


# -- sockets ---------------------------------------------------------------------------------------


def listeners(port: int = 0) -> list[Listener]:
    """
    Return every listening TCP socket of this network namespace, or those on ``port``.

    :raises OSError: neither netlink nor /proc/net gives an answer
    """
    if CAPABILITIES.sock_diag:
        try:
            return _diag.by_netlink(port)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            CAPABILITIES.lose("sock_diag")
    return _diag.by_proc(port)


def connections(port: int) -> list[Connection]:
    """
    Return the TCP connections to ``port`` of this network namespace, also those just closed.

    :raises OSError: neither netlink nor /proc/net gives an answer
    """
    if CAPABILITIES.sock_diag:
        try:
            return _diag.connections_by_netlink(port)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            CAPABILITIES.lose("sock_diag")
    return _diag.connections_by_proc(port)


def sees_all_listeners() -> bool:
    """Tell whether `listeners` knows the sockets of other users too."""
    return True


# -- where we are ----------------------------------------------------------------------------------

_constants: dict[str, str] = {}


def boot_id() -> str:
    """
    Return what names this boot of the kernel.

    Where the kernel does not say (`/proc/sys` masked), it is `init-` and the start of process 1: it does not
    move with the clock, as the boot time in /proc/stat does, but two boots may share it. So two of these
    differ in proof of nothing; `devsup.identity` knows.
    """
    known = _constants.get("boot")
    if known is None:
        known = _constants["boot"] = _find_boot_id()
    return known


def _find_boot_id() -> str:
    if CAPABILITIES.boot_id and (text := first_line("/proc/sys/kernel/random/boot_id")):
        return text
    try:
        first = process(1)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        first = None
    return f"init-{'?' if first is None else first.ticks}"


def machine_id() -> str:
    """Return the text in /etc/machine-id, or the host's name where there is none."""
    known = _constants.get("machine")
    if known is None:
        known = first_line("/etc/machine-id") or first_line("/var/lib/dbus/machine-id") or ""
        if len(known) != 32:  # it holds `uninitialized` until the first boot has ended
            known = os.uname().nodename.replace("/", "-") or "localhost"
        _constants["machine"] = known
    return known


def pid_namespace() -> str:
    """
    Return the name of this process's pid namespace: its number, and where it has one when it began.

    `4026532817.81520`: the kernel gives the number of one that has ended to the next one, so the start time
    of its first process (ticks) is named, too. In another time namespace than the first, the start times of
    processes are shifted: that is named as well (`+4026532820`), as nobody outside could tell such processes
    by them.
    """
    number = os.stat("/proc/self/ns/pid").st_ino
    name = str(number)
    if number != _FIRST_PID_NAMESPACE and (began := _first_ticks()) is not None:
        name = f"{name}.{began}"
    elsewhere = _other_time_namespace()
    return name if elsewhere is None else f"{name}+{elsewhere}"


def _other_time_namespace() -> int | None:
    """Return the number of this process's time namespace; None of the machine's own."""
    try:
        number = os.stat("/proc/self/ns/time").st_ino
    except OSError:  # before Linux 5.6
        return None
    return None if number == _FIRST_TIME_NAMESPACE else number


def _first_ticks() -> int | None:
    """Return when the first process of this pid namespace started; None where `/proc` does not tell."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # it is the `/proc` of another namespace
        first = process(1)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    return None if first is None else first.ticks


def pid_namespaces() -> dict[str, int | None] | None:
    """
    Return the numbers of all pid namespaces in which anything lives; None where not all can be seen.

    Each with the start time (ticks) of its first process, which is the oldest of them; None of the machine's
    own, and of all where this process is in another time namespace, to which they are shifted. Only who is in
    the machine's own pid namespace sees the processes of all others. One whose processes have ended can never
    have others; its number may go to a new one.
    """
    found: dict[str, int | None] = {}
    try:
        tells = _other_time_namespace() is None
        if os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE:
            return None
        pids = all_pids()
        if 1 not in pids:  # strangers' processes are hidden (hidepid)
            return None
        for pid in pids:
            try:
                number = os.stat(f"/proc/{pid}/ns/pid").st_ino
            except PermissionError:
                if _is_nested(pid):
                    return None
            except (FileNotFoundError, ProcessLookupError):
                continue
            else:
                _note_oldest(found, number, pid if tells else None)
    except (OSError, UnsupportedPlatform):
        return None
    return found


def _note_oldest(found: dict[str, int | None], number: int, pid: int | None) -> None:
    info = process(pid) if pid is not None and number != _FIRST_PID_NAMESPACE else None
    before = found.setdefault(str(number), None)
    if info is not None and (before is None or info.ticks < before):
        found[str(number)] = info.ticks


def _is_nested(pid: int) -> bool:
    # Anybody may read this, and a process of our own namespace has no number but the one.
    try:
        status = read(f"/proc/{pid}/status")
    except FileNotFoundError:
        return False
    for line in status.split(b"\n"):
        if line.startswith(b"NSpid:"):
            return len(line.split()) != 2
    return True


def net_namespace() -> str:
    """Return the number of this process's network namespace."""
    return str(os.stat("/proc/self/ns/net").st_ino)

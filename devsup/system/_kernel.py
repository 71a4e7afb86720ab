"""
What the Linux below us can do, and how its small files are read.

The table is found out column by column at the first question and kept for the life of the process. Safe from
any thread and after a fork.
"""

from __future__ import annotations

import errno
import os

from devsup.system._core import Capabilities

__all__ = ["CAPABILITIES", "EXHAUSTED", "REFUSED", "first_line", "read"]

#: Errors that mean "this kernel or its filter does not do that", not "not now".
REFUSED = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP)
#: Errors that say nothing of the kernel: the next call may do.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def read(path: str) -> bytes:
    """Return the whole file. ProcessLookupError is a FileNotFoundError here: the process went meanwhile."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # To the end: some files of /proc (`children`) come a page at a time, however much is asked for.
        parts = []
        while data := os.read(handle, 65536):
            parts.append(data)
        return b"".join(parts)
    except ProcessLookupError as error:
        raise FileNotFoundError(errno.ENOENT, "the process has ended", path) from error
    finally:
        os.close(handle)


def first_line(path: str) -> str | None:
    """
    Return the first line without blanks around it, None where there is nothing.

    :raises OSError: not now: what is kept of the answer would be wrong for the life of the process
    """
    try:
        return read(path).split(b"\n", 1)[0].decode(errors="replace").strip() or None
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None


def _can_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except AttributeError:  # a Python built for an old kernel
        return False
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise  # "not now" is not "never"
        return False
    return True


def _can_pidfs() -> bool:
    # Before pidfs all pidfds share one anonymous inode. An emulated kernel may also make up a new one at each
    # open, so two of the same process must agree.
    if not CAPABILITIES.pidfd:
        return False
    handles: list[int] = []
    try:
        handles.append(os.pidfd_open(os.getpid()))
        handles.append(os.pidfd_open(os.getpid()))
        handles.append(os.eventfd(0))
        mine, again, anonymous = map(os.fstat, handles)
        if mine.st_ino != again.st_ino or mine.st_dev == anonymous.st_dev:
            return False
        parent = os.getppid()
        if parent == 0:  # it is outside of our pid namespace
            return True
        handles.append(os.pidfd_open(parent))
        return os.fstat(handles[-1]).st_ino != mine.st_ino
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return False
    finally:
        for handle in handles:
            os.close(handle)


def _can_children_file() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _can_boot_id() -> bool:
    return first_line("/proc/sys/kernel/random/boot_id") is not None


CAPABILITIES = Capabilities(
    {
        "pidfd": _can_pidfd,
        "pidfs": _can_pidfs,
        "sock_diag": lambda: True,  # found out by the first call, which costs as much as a test would
        "subreaper": lambda: True,  # since Linux 3.4; asking needs ctypes, see `become_subreaper`
        "children_file": _can_children_file,
        "boot_id": _can_boot_id,
        # A filesystem or a limit may say no all the same: see `devsup.system.files`.
        "collapse_range": lambda: True,
        "punch_hole": lambda: True,
        "inotify": lambda: True,
    }
)

"""
What the operating system says of processes and sockets, behind one signature for every platform.

Linux is read directly, everything else POSIX through psutil (``DEVSUP_SYSTEM=portable`` asks for that on
Linux too). No state but per-process constants, see the two modules; safe from any thread and after a fork.
"""

from __future__ import annotations

import os
import sys

from devsup.errors import UnsupportedPlatform
from devsup.system._core import Capabilities, Connection, Listener, ProcessInfo

if os.name != "posix":
    raise UnsupportedPlatform(
        f"devsup does not run on {sys.platform}: it needs the process groups and signals of a Unix system",
        hint="on Windows use WSL 2",
    )

#: Whether the answers come from psutil: a process started without site-packages has none.
PORTABLE: bool = sys.platform != "linux" or os.environ.get("DEVSUP_SYSTEM") == "portable"

if PORTABLE:
    from devsup.system.portable import (
        CAPABILITIES,
        all_pids,
        become_subreaper,
        boot_id,
        children,
        cmdline,
        connections,
        cwd,
        environ,
        exe,
        has_exited,
        listeners,
        machine_id,
        net_namespace,
        now_ticks,
        open_pidfd,
        pid_namespace,
        pid_namespaces,
        pidfd_inode,
        process,
        sees_all_listeners,
        send_signal,
        set_title,
        socket_inodes,
        uid,
    )
else:
    from devsup.system.linux import (
        CAPABILITIES,
        all_pids,
        become_subreaper,
        boot_id,
        children,
        cmdline,
        connections,
        cwd,
        environ,
        exe,
        has_exited,
        listeners,
        machine_id,
        net_namespace,
        now_ticks,
        open_pidfd,
        pid_namespace,
        pid_namespaces,
        pidfd_inode,
        process,
        sees_all_listeners,
        send_signal,
        set_title,
        socket_inodes,
        uid,
    )

__all__ = [
    "CAPABILITIES",
    "PORTABLE",
    "Capabilities",
    "Connection",
    "Listener",
    "ProcessInfo",
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
    "was_given",
]


def was_given(name: bytes) -> bool:
    """
    Tell whether this process was executed with the variable ``name``.

    Where the caller has no locale Python gives itself one, in its environment and so in that of its children
    (PEP 538).
    """
    block = environ(os.getpid())
    return block is None or block.startswith(name + b"=") or b"\0" + name + b"=" in block

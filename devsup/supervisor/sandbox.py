"""
Does this sandbox take the servers along when the caller ends? Reads only; a guess that is said as one.

A pid namespace dies with its first process. Where that is this very command, a program that called it, or a
sandbox wrapper, a server that outlives the call is an illusion. An init that stays is none of these.
"""

from __future__ import annotations

import os

from devsup import system
from devsup import tree as trees

__all__ = ["dies_with_caller"]

#: The pid namespace of the machine itself (``PROC_PID_INIT_INO`` in Linux's proc_ns.h).
_FIRST_NAMESPACE = "4026531836"
_WRAPPERS = frozenset({"bwrap", "firejail", "nsjail", "unshare"})
#: First processes that stay while their container does, whatever ends below them.
_INITS = frozenset(
    (
        *("catatonit", "docker-init", "dumb-init", "init", "launchd", "my_init", "openrc-init", "pause"),
        *("podman-init", "runit", "runsvdir", "s6-svscan", "supervisord", "systemd", "tini", "tini-static"),
    )
)


def dies_with_caller() -> str | None:
    """Return what to tell the caller, or None where servers live on."""
    namespace = system.pid_namespace()
    if not namespace or namespace.startswith(_FIRST_NAMESPACE):
        return None
    if os.getpid() == 1:
        return "this command is the first process of its sandbox: all others, servers too, end with it"
    first = _comm(1)
    if first in _WRAPPERS or (first not in _INITS and 1 in trees.above(os.getpid())):
        return f"this sandbox ends all its processes, servers too, when its first one (`{first}`) ends"
    return None


def _comm(pid: int) -> str | None:
    try:
        info = system.process(pid)
    except PermissionError:
        return None
    return None if info is None else info.comm

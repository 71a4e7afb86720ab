"""
Situations that only the kernel can make: pids given away again, calls that a sandbox refuses.

The code below runs in processes of its own (fixture `spawn`), so whatever it changes ends with them. Where
the machine does not allow a situation the process says so in one line, `skip: ...`, which `answer_of` turns
into `pytest.skip`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess

__all__ = ["LINUX_ONLY", "PLANT", "REFUSE", "answer_of"]

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")

#: `born`, `end` and `reborn`: children of this process, and how to give the pid of one to another.
PLANT = """
import errno, json, os, signal, sys, time

def give_up(reason):
    print("skip: " + reason, flush=True)
    sys.exit(0)

def born():
    '''Start a child that does nothing and ends with its parent; return its pid.'''
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
    os.close(hold)
    return pid  # the other end stays open for as long as this process lives

def end(pid):
    '''Kill a child and reap it: from now on its pid can be given away.'''
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def untouched(pid):
    '''Whether the child still runs: any signal of these tests would have ended it.'''
    return os.waitpid(pid, os.WNOHANG) == (0, 0)

def reborn(pid):
    '''Start a child that has the pid of one that ended; None where somebody else got it first.'''
    for _ in range(20):
        try:
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(pid - 1))
        except OSError as error:
            give_up(f"only root decides about the next pid: {error}")
        child = born()
        if child == pid:
            return child
        end(child)
    return None

def plant(make, ticks_of, same_tick):
    '''
    Return (what `make` made of a child, the pid of another child that has the same pid now).

    The children were started within one tick of the kernel's clock (10 ms), or in two.
    '''
    for _ in range(200):
        first = born()
        made, ticks = make(first), ticks_of(first)
        end(first)
        if not same_tick:
            hertz = os.sysconf("SC_CLK_TCK")
            while int(time.clock_gettime(time.CLOCK_BOOTTIME) * hertz) <= ticks:
                pass
        second = reborn(first)
        if second is None:
            continue
        if (ticks_of(second) == ticks) == same_tick:
            return made, second
        end(second)
    give_up("this machine is too busy to give a pid away in time")
"""

#: `refuse(errno, *calls)`: from now on these system calls of this process fail, as under a container's
#: filter.
REFUSE = """
import ctypes, platform, struct, sys

NUMBERS = {
    "x86_64": {"pidfd_open": 434, "pidfd_send_signal": 424, "socket": 41},
    "aarch64": {"pidfd_open": 434, "pidfd_send_signal": 424, "socket": 198},
}.get(platform.machine())

def refuse(error, *calls):
    if NUMBERS is None:
        print("skip: the numbers of system calls are not known for " + platform.machine(), flush=True)
        sys.exit(0)
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 0)]  # the number of the call
    for name in calls:
        program += [(jump_if_equal, 0, 1, NUMBERS[name]), (answer, 0, 0, 0x50000 | error)]
    program.append((answer, 0, 0, 0x7FFF0000))  # everything else is allowed
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    filter = Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    refused = libc.prctl(no_new_privileges, 1, 0, 0, 0)
    if refused or libc.prctl(set_seccomp, mode_filter, ctypes.byref(filter)):
        print(f"skip: no seccomp here, errno {ctypes.get_errno()}", flush=True)
        sys.exit(0)
"""


def answer_of(child: subprocess.Popen[str]) -> Any:
    """Return the JSON that ``child`` prints before it ends; skip the test where it says why it cannot."""
    out, err = child.communicate(timeout=30)
    last = out.strip().rpartition("\n")[2]
    if last.startswith("skip: "):
        pytest.skip(last.removeprefix("skip: "))
    assert child.returncode == 0, err
    return json.loads(last)

"""Is pid n still the process we started? Under every kernel we may meet."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from devsup import identity, system
from devsup.identity import Liveness
from devsup.models import Identity
from devsup.system import portable
from tests.kernel import LINUX_ONLY, PLANT, REFUSE, answer_of
from tests.support import hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Spawn

SLEEPER = "import sys; print('ready', flush=True); sys.stdin.read()"

#: What a kernel may lack, by the environment that takes it away.
KERNELS = {
    "complete": {},
    "before pidfs": {"DEVSUP_WITHOUT": "pidfs"},
    "before pidfd": {"DEVSUP_WITHOUT": "pidfd"},
    "portable": {"DEVSUP_SYSTEM": "portable"},
}


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test as on each of these kernels; give its name."""
    name: str = request.param
    if name != "portable" and sys.platform != "linux":
        pytest.skip("of Linux")
    for variable, value in KERNELS[name].items():
        monkeypatch.setenv(variable, value)
    if name == "portable":
        monkeypatch.setattr(identity, "system", portable)
    system.CAPABILITIES.forget()
    identity._forget_me()
    yield name
    monkeypatch.undo()
    system.CAPABILITIES.forget()
    identity._forget_me()


def name_of(pid: int) -> str | None:
    info = system.process(pid)
    return None if info is None else info.comm


def started(spawn: Spawn) -> tuple[subprocess.Popen[str], Identity]:
    child = spawn(SLEEPER)
    assert hear(child) == "ready\n"
    who = identity.of(child.pid)
    assert who is not None
    return child, who


# -- one process, from birth to burial -------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_a_process_is_alive_until_it_has_ended(spawn: Spawn) -> None:
    child, who = started(spawn)
    assert identity.liveness(who) is Liveness.ALIVE
    assert not identity.is_gone(who)
    say(child, "")
    child.communicate()
    assert identity.liveness(who) is Liveness.GONE
    assert identity.is_gone(who)
    assert identity.of(child.pid) is None
    assert identity.is_gone(None)


@pytest.mark.usefixtures("kernel")
def test_a_zombie_is_gone(spawn: Spawn) -> None:
    """Where process 1 reaps nobody, stopped servers stay zombies for ever: they must not count as running."""
    child, who = started(spawn)
    child.kill()
    wait_until(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    assert identity.liveness(who) is Liveness.GONE
    assert identity.of(child.pid) is None
    assert identity.signal(who, signal.SIGTERM) is False


@pytest.mark.usefixtures("kernel")
def test_a_stopped_process_is_alive(spawn: Spawn) -> None:
    child, who = started(spawn)
    assert identity.signal(who, signal.SIGSTOP) is True
    wait_until(lambda: os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG))
    assert identity.liveness(who) is Liveness.ALIVE


@pytest.mark.usefixtures("kernel")
def test_identity_survives_exec(spawn: Spawn) -> None:
    """A guard records its child before it lets it become the server."""
    child = spawn(
        "import os, sys; print('ready', flush=True); sys.stdin.readline(); os.execvp('cat', ['cat'])"
    )
    assert hear(child) == "ready\n"
    before = identity.of(child.pid)
    assert before is not None
    say(child, "go\n")
    wait_until(lambda: name_of(child.pid) == "cat")
    say(child, "now a cat\n")
    assert hear(child) == "now a cat\n"
    assert identity.of(child.pid) == before
    assert identity.liveness(before) is Liveness.ALIVE


@LINUX_ONLY
@pytest.mark.usefixtures("kernel")
def test_a_process_whose_first_thread_has_ended_is_alive(spawn: Spawn) -> None:
    """The kernel shows it as a zombie, yet its other threads run and hold its sockets."""
    code = """
import ctypes, platform, sys, threading
exit_of_one_thread = {"x86_64": 60, "aarch64": 93}.get(platform.machine())
if exit_of_one_thread is None:
    print("skip", flush=True)
    sys.exit()
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(exit_of_one_thread, 0)
"""
    child = spawn(code)
    if hear(child) != "ready\n":
        pytest.skip("the number of `exit` is not known for this machine")
    with open(f"/proc/{child.pid}/stat") as file:
        wait_until(lambda: file.seek(0) or file.read().rpartition(")")[2].split()[0] == "Z")
    who = identity.of(child.pid)
    assert who is not None
    assert identity.liveness(who) is Liveness.ALIVE
    assert identity.signal(who, signal.SIGKILL) is True
    assert child.wait(10) == -signal.SIGKILL


# -- me --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_me_is_this_process_also_after_a_fork() -> None:
    mine = identity.me()
    assert mine == identity.of(os.getpid())
    assert identity.me() is mine
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        theirs = identity.me()
        os.write(
            writer,
            repr((theirs.pid == os.getpid(), theirs != mine, theirs == identity.of(os.getpid()))).encode(),
        )
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "(True, True, True)"
    os.waitpid(pid, 0)


@LINUX_ONLY
def test_a_child_with_its_grandparents_pid_is_not_its_grandparent(spawn: Spawn) -> None:
    """A pid alone does not tell a fork from the process that filled the memory it inherited."""
    code = """
from devsup import identity
reader, writer = os.pipe()
first = os.fork()
if first == 0:
    first = identity.me().pid
    if os.fork() == 0:
        while os.getppid() == first:
            pass
        os.setsid()
        for _ in range(50):
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(first - 1))
            if os.fork() == 0:
                if os.getpid() == first:
                    me = identity.me()
                    os.write(writer, json.dumps([me == identity.of(first), True]).encode())
                os._exit(os.getpid() == first)
            if os.wait()[1]:
                break
        os._exit(0)
    os._exit(0)
os.close(writer)
os.waitpid(first, 0)
heard = os.read(reader, 100)
print(heard.decode() or "skip: the pid could not be given away (not root, or too busy)", flush=True)
"""
    assert answer_of(spawn(PLANT + code)) == [True, True]


# -- the same pid, somebody else -------------------------------------------------------------------

JUDGE = """
import select
from devsup import identity, system

def judge(who, second):
    try:
        handle = identity.wait_handle(who)
    except OSError as error:
        handle = errno.errorcode[error.errno]
    print(json.dumps({
        "liveness": identity.liveness(who).value,
        "sent": identity.signal(who, signal.SIGKILL),
        "handle": handle,
        "untouched": untouched(second),
    }), flush=True)

ticks_of = lambda pid: system.process(pid).ticks
"""


@LINUX_ONLY
def test_a_pid_given_away_within_one_tick_is_never_taken_for_its_old_owner(spawn: Spawn) -> None:
    """Start times are 10 ms coarse: only the pidfd's inode tells these two apart."""
    if not system.CAPABILITIES.pidfs:
        pytest.skip("this kernel's pidfds have no inode of their own (before Linux 6.9)")
    code = PLANT + JUDGE + "judge(*plant(identity.of, ticks_of, same_tick=True))"
    assert answer_of(spawn(code)) == {"liveness": "gone", "sent": False, "handle": None, "untouched": True}


@LINUX_ONLY
@pytest.mark.parametrize("name", KERNELS)
def test_a_pid_given_away_later_is_never_taken_for_its_old_owner(spawn: Spawn, name: str) -> None:
    code = PLANT + JUDGE + "judge(*plant(identity.of, ticks_of, same_tick=False))"
    answer = answer_of(spawn(code, env=KERNELS[name]))
    assert answer == {"liveness": "gone", "sent": False, "handle": None, "untouched": True}


LATE = """
from devsup import identity, system

def die_and_be_reborn(handle, who, signum):
    # The verification is over: now the process ends and its pid is given away, then the signal goes out.
    global second
    end(who.pid)
    second = reborn(who.pid)
    send(handle, who, signum)

second, send = None, system.send_signal
system.send_signal = die_and_be_reborn
while second is None:
    sent = identity.signal(identity.of(born()), signal.SIGKILL)
print(json.dumps([sent, untouched(second)]), flush=True)
"""


@LINUX_ONLY
@pytest.mark.parametrize("without", ["", "pidfs"])
def test_a_pid_given_away_between_look_and_signal_is_not_signalled(spawn: Spawn, without: str) -> None:
    """The window that every `kill` by number has, forced: the pidfd closes it, with or without an inode."""
    if not system.CAPABILITIES.pidfd:
        pytest.skip("this kernel has no pidfd")
    assert answer_of(spawn(PLANT + LATE, env={"DEVSUP_WITHOUT": without})) == [False, True]


MIXED = """
from devsup import identity, system

def read_another(pid):
    # The pidfd is open: now the process ends and its pid is given away, then the start time is read.
    global second
    end(pid)
    second = reborn(pid)
    return read(pid)

second, read = None, system.process
system.process = read_another
while second is None:
    who = identity.of(born())
print(json.dumps([who is None, untouched(second)]), flush=True)
"""


@LINUX_ONLY
@pytest.mark.parametrize("without", ["", "pidfs"])
def test_no_identity_is_made_of_two_processes(spawn: Spawn, without: str) -> None:
    """The handle of one and the start time of another would be nobody: a living server that looks gone."""
    if not system.CAPABILITIES.pidfd:
        pytest.skip("this kernel has no pidfd")
    assert answer_of(spawn(PLANT + MIXED, env={"DEVSUP_WITHOUT": without})) == [True, True]


@LINUX_ONLY
def test_a_number_that_is_a_threads_now_is_gone(spawn: Spawn) -> None:
    """Threads have numbers of the same kind, and `kill` would hit their process."""
    child = spawn(
        "import sys, threading; thread = threading.Thread(target=sys.stdin.read); thread.start();"
        "print(thread.native_id, flush=True)"
    )
    number = int(hear(child))
    assert identity.of(number) is None
    who = identity.of(child.pid)
    assert who is not None
    assert identity.liveness(who.replace(pid=number)) is Liveness.GONE
    assert identity.signal(who.replace(pid=number), signal.SIGKILL) is False
    assert child.poll() is None


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**31 - 1, 2**40])
def test_numbers_that_no_process_has_are_gone(pid: int) -> None:
    """0 is a group and -1 is everybody to `kill`."""
    nobody = identity.me().replace(pid=pid)
    assert identity.of(pid) is None
    assert identity.liveness(nobody) is Liveness.GONE
    assert identity.signal(nobody, signal.SIGCONT) is False


@pytest.mark.usefixtures("kernel")
def test_another_start_another_boot_or_another_inode_is_gone(kernel: str) -> None:
    mine = identity.me()
    others = [mine.replace(boot="0d9c0fd5-0000-4000-8000-000000000000")]
    if kernel == "complete":
        others.append(mine.replace(inode=mine.inode + 1))
    else:
        others.append(mine.replace(ticks=mine.ticks + 1))
    for other in others:
        assert identity.liveness(other) is Liveness.GONE
        assert identity.signal(other, 0) is False


def test_an_identity_without_inode_is_judged_by_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record may have been written where the kernel gave none (another sandbox)."""
    mine = identity.me().replace(inode=0)
    assert identity.liveness(mine) is Liveness.ALIVE
    assert identity.liveness(mine.replace(ticks=mine.ticks - 1)) is Liveness.GONE
    monkeypatch.setenv("DEVSUP_WITHOUT", "pidfs")
    system.CAPABILITIES.forget()
    try:
        assert identity.liveness(mine.replace(inode=7)) is Liveness.ALIVE
    finally:
        monkeypatch.delenv("DEVSUP_WITHOUT")
        system.CAPABILITIES.forget()


# -- fail closed -----------------------------------------------------------------------------------


def test_what_may_not_be_read_is_unknown_and_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = identity.me()

    def refuse(_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(system, "process", refuse)
    monkeypatch.setattr(system, "open_pidfd", refuse)
    assert identity.liveness(mine) is Liveness.UNKNOWN
    assert not identity.is_gone(mine)
    assert identity.signal(mine, signal.SIGKILL) is False
    with pytest.raises(PermissionError):
        identity.of(os.getpid())
    with pytest.raises(PermissionError):
        identity.wait_handle(mine)


def test_a_stand_in_for_the_boot_id_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them may be of one boot, and one process may see the boot id that another does not."""
    mine = identity.me()
    for recorded, now in [("init-3", mine.boot), (mine.boot, "init-3"), ("init-3", "init-4")]:
        monkeypatch.setattr(system, "boot_id", lambda now=now: now)
        who = mine.replace(boot=recorded)
        assert identity.liveness(who) is Liveness.UNKNOWN
        assert identity.signal(who, signal.SIGKILL) is False
        assert identity.liveness(who.replace(pid=2**22 + 1)) is Liveness.GONE
    monkeypatch.setattr(system, "boot_id", lambda: "init-3")
    assert identity.liveness(mine.replace(boot="init-3")) is Liveness.ALIVE


@LINUX_ONLY
def test_a_process_without_descriptors_left_calls_nobody_gone(spawn: Spawn) -> None:
    code = """
import json, os, resource
from devsup import identity
mine = identity.me()
stranger = identity.of(os.getppid())
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
answers = [identity.liveness(mine).value, identity.liveness(stranger.replace(inode=0)).value]
answers.append(identity.signal(mine, 9))
print(json.dumps(answers))
"""
    assert answer_of(spawn(code)) == ["unknown", "unknown", False]


@LINUX_ONLY
@pytest.mark.parametrize("without", ["", "boot_id"])
def test_a_process_without_descriptors_left_is_nowhere_else(spawn: Spawn, without: str) -> None:
    """It keeps for life where it is: in another scope it would not see its servers, and start them again."""
    code = """
import json, resource
from devsup import identity
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    answers = [identity.here().key]
except OSError as error:
    answers = [error.errno]
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(json.dumps([*answers, identity.here().key]))
"""
    look = "import json; from devsup import identity; print(json.dumps(identity.here().key))"
    environment = {"DEVSUP_WITHOUT": without}
    known = answer_of(spawn(look, env=environment))
    assert answer_of(spawn(code, env=environment)) == [errno.EMFILE, known]


@LINUX_ONLY
def test_another_users_process_is_alive_and_not_signalled(spawn: Spawn) -> None:
    """A refused signal is an answer, no crash; the process is seen to live on."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    code = """
import json, os, signal, sys  # later the new user may have no right to read the library
from devsup import identity
os.setgid(65534)
os.setuid(65534)
who = identity.of(int(sys.argv[1]))
print(json.dumps([identity.signal(who, 15), identity.liveness(who).value]))
"""
    for environment in ({}, {"DEVSUP_WITHOUT": "pidfd"}):
        assert answer_of(spawn(code, os.getpid(), env=environment)) == [False, "alive"]


@LINUX_ONLY
@pytest.mark.parametrize("hidepid", [1, 2])
@pytest.mark.parametrize("without", ["", "pidfd"])
def test_a_hidden_process_is_not_gone(spawn: Spawn, hidepid: int, without: str) -> None:
    """With hidepid=2 the folder of a stranger does not exist: read naively, every server has ended."""
    code = """
import ctypes, json, os, signal, sys  # later the new user may have no right to read the library
libc = ctypes.CDLL(None, use_errno=True)
new_mount_namespace, private, recursive = 0x20000, 1 << 18, 0x4000
if (libc.unshare(new_mount_namespace) or libc.mount(b"none", b"/", None, private | recursive, None)
        or libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=" + sys.argv[2].encode())):
    print(f"skip: /proc cannot be mounted here, errno {ctypes.get_errno()}")
    sys.exit(0)
from devsup import identity
who = identity.of(int(sys.argv[1]))
os.setgid(65534)
os.setuid(65534)
answers = [identity.liveness(who).value, identity.signal(who, 15), identity.liveness(identity.me()).value]
print(json.dumps(answers))
"""
    answer = answer_of(spawn(code, os.getpid(), hidepid, env={"DEVSUP_WITHOUT": without}))
    # A pidfd needs no /proc.
    assert answer == ["unknown" if without or not system.CAPABILITIES.pidfs else "alive", False, "alive"]


@LINUX_ONLY
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize(
    "calls", [["pidfd_open"], ["pidfd_send_signal"], ["pidfd_open", "pidfd_send_signal"]]
)
def test_an_old_container_that_refuses_pidfds_is_served_all_the_same(
    spawn: Spawn, error: str, calls: list[str]
) -> None:
    code = """
import errno, json, os, signal, subprocess
refuse(getattr(errno, sys.argv[1]), *sys.argv[2:])
from devsup import identity, system
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
who = identity.of(child.pid)
answers = [identity.liveness(who).value, identity.signal(who, signal.SIGKILL), child.wait()]
answers += [identity.liveness(who).value, identity.signal(who, signal.SIGKILL), system.CAPABILITIES.pidfd]
print(json.dumps(answers))
"""
    opens = "pidfd_open" not in calls
    assert answer_of(spawn(REFUSE + code, error, *calls)) == ["alive", True, -9, "gone", False, opens]


# -- waiting ---------------------------------------------------------------------------------------


@LINUX_ONLY
def test_a_wait_handle_tells_the_end(spawn: Spawn) -> None:
    if not system.CAPABILITIES.pidfd:
        pytest.skip("this kernel has no pidfd")
    child, who = started(spawn)
    handle = identity.wait_handle(who)
    assert handle is not None
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(0) == []
        child.kill()
        assert poll.poll(10_000) != []
        assert not os.get_inheritable(handle)
    finally:
        os.close(handle)
    assert identity.wait_handle(who) is None  # a zombie already
    child.wait()
    assert identity.wait_handle(who) is None


def test_without_pidfds_there_is_no_wait_handle(kernel: str) -> None:
    mine = identity.me()
    if kernel in {"complete", "before pidfs"}:
        handle = identity.wait_handle(mine)
        assert handle is not None
        os.close(handle)
    else:
        with pytest.raises(OSError, match="pidfd"):
            identity.wait_handle(mine)


def test_no_descriptor_is_left_open(spawn: Spawn) -> None:
    child, who = started(spawn)
    before = os.listdir("/dev/fd")
    for _ in range(3):
        identity.liveness(who)
        identity.of(child.pid)
        identity.signal(who, 0)
        identity.liveness(who.replace(ticks=1, inode=1))
        identity.signal(who.replace(ticks=1, inode=1), 0)
        identity.wait_handle(who.replace(ticks=1, inode=1)) if system.CAPABILITIES.pidfs else None
    assert os.listdir("/dev/fd") == before


# -- scope -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_a_scope_is_here_foreign_or_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_here", None)
    monkeypatch.setattr(identity, "_namespaces", (time.monotonic() + 3600, None))
    monkeypatch.setattr(system, "pid_namespaces", lambda: None)  # not all can be seen
    scope = identity.here()
    boot = "0d9c0fd5-0000-4000-8000-000000000000"
    assert identity.here() == scope
    relations = {
        scope.key: "here",
        scope.replace(boot=boot).key: "lost",
        scope.replace(boot=boot, pidns="1").key: "lost",
        scope.replace(pidns="1").key: "foreign",
        scope.replace(machine="other").key: "foreign",
        scope.replace(machine="other", boot=boot).key: "foreign",
        scope.replace(boot="init-3").key: "foreign",
        scope.machine: "foreign",
        "": "foreign",
    }
    assert {key: identity.scope_relation(key) for key in relations} == relations


def test_a_pid_namespace_without_processes_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of this very kernel, and only where all namespaces are seen: numbers mean nothing elsewhere."""
    looks: list[dict[str, int | None] | None] = [{"7": 500, "8": None}]
    monkeypatch.setattr(identity, "_namespaces", (time.monotonic() + 3600, None))
    monkeypatch.setattr(system, "pid_namespaces", looks.pop)
    scope = identity.here().replace(boot="0d9c0fd5-0000-4000-8000-000000000000")
    monkeypatch.setattr(identity, "_here", scope)
    monkeypatch.setattr(identity, "_MOMENT", 60.0)
    relations = {
        scope.replace(pidns="1").key: "lost",
        scope.replace(pidns="1+2").key: "lost",
        scope.replace(pidns="1", machine="container").key: "lost",
        scope.replace(pidns="7").key: "foreign",
        scope.replace(pidns="7+2").key: "foreign",
        scope.replace(pidns="7.500").key: "foreign",
        scope.replace(pidns="7.499").key: "lost",  # its number was given to another one
        scope.replace(pidns="7.499+2").key: "foreign",  # its start times are shifted
        scope.replace(pidns="8.499").key: "foreign",
        scope.replace(pidns="-").key: "foreign",
        scope.replace(pidns="1", boot="init-3").key: "foreign",
        scope.replace(pidns="1", boot="other", machine="other").key: "foreign",
    }
    # One look serves for all of them.
    assert {key: identity.scope_relation(key) for key in relations} == relations
    assert looks == []


@LINUX_ONLY
def test_only_the_first_namespace_sees_all_others(spawn: Spawn) -> None:
    """From inside of a container nothing is proven about others; from outside it is there while it lives."""
    probe = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False
    )
    outside = system.pid_namespaces()
    if probe.returncode != 0 or outside is None:
        pytest.skip("no pid namespace for us, or not all are seen from here")
    look = (
        "import sys; from devsup import system;"
        "print(system.pid_namespace(), system.pid_namespaces(), flush=True); sys.stdin.read()"
    )
    code = (
        "import os, sys; os.execvp('unshare', ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child',"
        " sys.executable, '-c', sys.argv[1]])"
    )
    child = spawn(code, look)
    name, _, seen = hear(child).strip().partition(" ")
    number, _, began = name.partition(".")
    assert seen == "None"
    assert (system.pid_namespaces() or {})[number] == int(began)
    child.communicate(timeout=10)
    # Some other one may have been given the number since.
    assert (system.pid_namespaces() or {}).get(number) != int(began)


@LINUX_ONLY
def test_two_processes_agree_on_where_they_are(spawn: Spawn) -> None:
    code = "import json; from devsup import identity; print(json.dumps(identity.here().key))"
    for environment in ({}, {"DEVSUP_WITHOUT": "boot_id"}):
        first, second = (answer_of(spawn(code, env=environment)) for _ in range(2))
        assert first == second
    assert "/init-" in first


@LINUX_ONLY
@pytest.mark.parametrize("kind", ["pid", "time"])
def test_another_namespace_is_foreign(spawn: Spawn, kind: str) -> None:
    """Start times are shifted in a time namespace: its processes could be taken for gone from outside."""
    probe = subprocess.run(
        ["unshare", f"--{kind}", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"no {kind} namespace for us: {probe.stderr}")
    code = """
import json, os, subprocess, sys
look = "import sys; from devsup import identity; print(identity.scope_relation(sys.argv[1]))"
command = ["unshare", "--" + sys.argv[1], "--fork", "--mount-proc", sys.executable, "-c", look, sys.argv[2]]
print(json.dumps(subprocess.check_output(command, text=True)))
"""
    assert answer_of(spawn(code, kind, identity.here().key)) == "foreign\n"


@LINUX_ONLY
def test_a_proc_of_another_namespace_is_refused(spawn: Spawn) -> None:
    """There /proc/7 is somebody else's 7: every answer would be about a stranger."""
    code = """
import ctypes, json, os, sys
if ctypes.CDLL(None).unshare(0x20000000):
    print("skip: no pid namespace for us")
    sys.exit(0)
sys.stdout.flush()
if os.fork() == 0:
    from devsup import identity
    from devsup.errors import UnsupportedPlatform
    try:
        identity.me()
    except UnsupportedPlatform as error:
        print(json.dumps([error.message, error.hint]), flush=True)
    os._exit(0)
os.wait()
"""
    message, hint = answer_of(spawn(code))
    assert "another pid namespace" in message
    assert "--mount-proc" in hint

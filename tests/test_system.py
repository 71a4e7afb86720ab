"""Does the system tell the truth about processes and sockets, read directly and through psutil?"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import pytest

from devsup import system as chosen
from devsup.models import Identity
from devsup.system import Capabilities, Connection, Listener, ProcessInfo, _core, _diag, linux, portable
from devsup.system._core import CAPABILITY_NAMES
from tests.kernel import LINUX_ONLY, REFUSE, answer_of
from tests.support import hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Spawn

SLEEPER = "import sys; print('ready', flush=True); sys.stdin.read()"
NOBODY = 2**22 + 1  # above the highest pid a kernel gives


class System(Protocol):
    """What both modules give."""

    CAPABILITIES: Capabilities

    def process(self, pid: int) -> ProcessInfo | None: ...  # noqa: D102
    def all_pids(self) -> list[int]: ...  # noqa: D102
    def children(self, pid: int) -> list[int]: ...  # noqa: D102
    def environ(self, pid: int) -> bytes | None: ...  # noqa: D102
    def cmdline(self, pid: int) -> list[str]: ...  # noqa: D102
    def cwd(self, pid: int) -> str | None: ...  # noqa: D102
    def exe(self, pid: int) -> str | None: ...  # noqa: D102
    def uid(self, pid: int) -> int | None: ...  # noqa: D102
    def socket_inodes(self, pid: int) -> set[int]: ...  # noqa: D102
    def listeners(self, port: int = 0) -> list[Listener]: ...  # noqa: D102
    def connections(self, port: int) -> list[Connection]: ...  # noqa: D102
    def open_pidfd(self, pid: int) -> int | None: ...  # noqa: D102
    def pidfd_inode(self, pid: int) -> int: ...  # noqa: D102
    def send_signal(self, handle: int | None, who: Identity, signum: int) -> None: ...  # noqa: D102
    def boot_id(self) -> str: ...  # noqa: D102
    def machine_id(self) -> str: ...  # noqa: D102
    def pid_namespace(self) -> str: ...  # noqa: D102
    def net_namespace(self) -> str: ...  # noqa: D102
    def now_ticks(self) -> int: ...  # noqa: D102


#: Each way to an answer that the same test must accept: a module and what is taken from it.
WAYS = {"linux": "", "linux without everything": ",".join(CAPABILITY_NAMES), "portable": ""}


@pytest.fixture(params=WAYS)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    name: str = request.param
    if name != "portable" and sys.platform != "linux":
        pytest.skip("of Linux")
    module: System = portable if name == "portable" else linux
    monkeypatch.setenv("DEVSUP_WITHOUT", WAYS[name])
    monkeypatch.setattr(module, "_constants", {})
    module.CAPABILITIES.forget()
    yield module
    monkeypatch.undo()
    module.CAPABILITIES.forget()


def sleeper(spawn: Spawn, **options: Any) -> subprocess.Popen[str]:
    child = spawn(SLEEPER, **options)
    assert hear(child) == "ready\n"
    return child


# -- one process -----------------------------------------------------------------------------------


def test_a_process_is_described_as_it_is(system: System, spawn: Spawn) -> None:
    child = sleeper(spawn)
    info = system.process(child.pid)
    assert info is not None
    assert (info.pid, info.ppid) == (child.pid, os.getpid())
    assert (info.pgid, info.sid) == (os.getpgid(child.pid), os.getsid(child.pid))
    assert info.comm == psutil.Process(child.pid).name()
    assert info.tty == 0 or psutil.Process(child.pid).terminal()
    assert not info.dead
    again = system.process(child.pid)
    assert again is not None
    assert again.replace(state=info.state) == info


@LINUX_ONLY
def test_both_modules_give_one_start_time(spawn: Spawn) -> None:
    child = sleeper(spawn)
    direct, through_psutil = linux.process(child.pid), portable.process(child.pid)
    assert direct is not None
    assert through_psutil is not None
    assert direct.ticks == through_psutil.ticks
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - direct.ticks / os.sysconf("SC_CLK_TCK")
    assert 0 <= age < 60


@LINUX_ONLY
def test_the_start_does_not_move_with_the_clock(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that was frozen sets its clock when it goes on; its servers are still the same."""
    child = sleeper(spawn)
    before = portable.process(child.pid)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 12345.0)
    assert portable.process(child.pid) == before


@LINUX_ONLY
def test_a_name_with_parentheses_and_blanks_is_read(system: System, temporary: Path) -> None:
    program = temporary / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as child:
        try:
            seen = (program.name, os.getpid(), "S")
            wait_until(
                lambda: (info := system.process(child.pid)) and (info.comm, info.ppid, info.state) == seen
            )
        finally:
            child.kill()


@pytest.mark.parametrize("pid", [0, -1, NOBODY, 2**31 - 1, 2**31, 2**64])
def test_numbers_that_no_process_has_give_none(system: System, pid: int) -> None:
    assert system.process(pid) is None
    assert system.children(pid) == [] or pid == 0
    assert system.environ(pid) is None
    assert system.cmdline(pid) == []
    assert (system.cwd(pid), system.exe(pid), system.uid(pid)) == (None, None, None)
    assert system.socket_inodes(pid) == set()
    assert system.pidfd_inode(pid) == 0


def test_a_zombie_is_dead(system: System, spawn: Spawn) -> None:
    child = sleeper(spawn)
    alive = system.process(child.pid)
    assert alive is not None
    child.kill()
    wait_until(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    dead = system.process(child.pid)
    assert dead is not None
    assert (dead.state, dead.dead, dead.ticks) == ("Z", True, alive.ticks)
    assert system.cmdline(child.pid) == []
    child.wait()
    assert system.process(child.pid) is None


def test_a_stopped_process_is_seen_as_such(system: System, spawn: Spawn) -> None:
    child = sleeper(spawn)
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG))
    info = system.process(child.pid)
    assert info is not None
    assert (info.state, info.dead) == ("T", False)


def test_a_session_and_a_group_of_ones_own(system: System, spawn: Spawn) -> None:
    child = spawn("import os, sys; os.setsid(); print('ready', flush=True); sys.stdin.read()")
    assert hear(child) == "ready\n"
    info = system.process(child.pid)
    assert info is not None
    assert (info.pgid, info.sid) == (child.pid, child.pid)


def test_a_terminal_is_seen(system: System, spawn: Spawn) -> None:
    """What has one is somebody's shell or editor, and is left alone by a stop."""
    child = spawn(
        "import os, pty, sys\n"
        "pid, master = pty.fork()\n"
        "if pid == 0: os.read(0, 1); os._exit(0)\n"
        "print(pid, flush=True); sys.stdin.read()"
    )
    inner, outer = int(hear(child)), system.process(child.pid)
    assert outer is not None
    wait_until(lambda: (info := system.process(inner)) and info.tty not in {0, outer.tty})


def test_everybody_is_listed(system: System, spawn: Spawn) -> None:
    child = sleeper(spawn)
    assert {os.getpid(), child.pid} <= set(system.all_pids())


def test_children_are_found_whichever_thread_made_them(system: System, spawn: Spawn) -> None:
    """Node starts its children from the main thread, others do not; the kernel keeps a list per thread."""
    code = """
import os, subprocess, sys, threading
def start():
    made.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE).pid)
    written.set()
    done.wait()
made, written, done = [], threading.Event(), threading.Event()
thread = threading.Thread(target=start)
thread.start()
written.wait()
made.append(subprocess.Popen([sys.executable, "-c", "import sys; sys.exit()"]).pid)
os.waitid(os.P_PID, made[1], os.WEXITED | os.WNOWAIT)
print(*made, flush=True)
sys.stdin.read()
done.set()
"""
    child = spawn(code)
    of_thread, zombie = map(int, hear(child).split())
    assert sorted(system.children(child.pid)) == sorted([of_thread, zombie])
    assert child.pid in system.children(os.getpid())
    assert of_thread not in system.children(os.getpid())


@LINUX_ONLY
def test_very_many_children_are_all_found(spawn: Spawn) -> None:
    """The kernel gives their list a page at a time: some 600 of them."""
    child = spawn("""
import os, sys
hold, release = os.pipe()
for _ in range(1000):
    if os.fork() == 0:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
print("ready", flush=True)
sys.stdin.read()
""")
    assert hear(child) == "ready\n"
    found = linux.children(child.pid)
    assert (len(found), len(set(found))) == (1000, 1000)


def test_the_environment_is_the_one_it_was_started_with(system: System, spawn: Spawn) -> None:
    long = "x" * 100_000  # more than one read
    child = sleeper(spawn, env={"DEVSUP_TEST_LONG": long, "DEVSUP_TEST_TEXT": "a=b \N{SNOWMAN}"})
    raw = system.environ(child.pid)
    assert raw is not None
    variables = raw.split(b"\0")
    assert b"DEVSUP_TEST_LONG=" + long.encode() in variables
    assert b"DEVSUP_TEST_TEXT=" + "a=b \N{SNOWMAN}".encode() in variables
    assert raw.endswith(b"\0")


def test_arguments_are_kept_apart(system: System) -> None:
    argv = [sys.executable, "-c", "input()", "", "two words", "\N{SNOWMAN}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        try:
            wait_until(lambda: system.cmdline(child.pid)[1:] == argv[1:])
        finally:
            child.kill()


def test_folder_and_program_are_told(system: System, spawn: Spawn, temporary: Path) -> None:
    child = sleeper(spawn, cwd=temporary)
    assert system.cwd(child.pid) == str(temporary)
    program = system.exe(child.pid)
    assert program is not None
    assert os.path.samefile(program, sys.executable)


@LINUX_ONLY
def test_a_program_that_was_replaced_keeps_its_name(system: System, temporary: Path) -> None:
    """An update of node under a running server: the server is still recognised by its program."""
    program = temporary / "node"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as child:
        try:
            wait_until(lambda: system.exe(child.pid) == str(program))
            program.unlink()
            assert system.exe(child.pid) == str(program)
        finally:
            child.kill()


def test_the_user_is_told(system: System, spawn: Spawn) -> None:
    assert system.uid(os.getpid()) == os.getuid()
    if os.geteuid() != 0:
        return
    child = spawn("import os, sys; os.setuid(65534); print('ready', flush=True); sys.stdin.read()")
    assert hear(child) == "ready\n"
    assert system.uid(child.pid) == 65534


def test_now_is_counted_as_starts_are(system: System, spawn: Spawn) -> None:
    before = system.now_ticks()
    child = sleeper(spawn)
    info = system.process(child.pid)
    assert info is not None
    assert before <= info.ticks <= system.now_ticks()


@LINUX_ONLY
def test_a_process_can_give_itself_a_name(spawn: Spawn) -> None:
    code = "import json, os; from devsup import system; system.set_title('devsup: web and more')\n"
    shown = answer_of(spawn(code + "print(json.dumps(system.process(os.getpid()).comm))"))
    assert shown == "devsup: web and"
    name = answer_of(spawn(code + "print(json.dumps(system.cmdline(os.getpid())[0]))"))
    assert name.endswith(os.path.basename(sys.executable))


# -- signals ---------------------------------------------------------------------------------------


def test_a_signal_without_handle_goes_to_nobody_else(system: System, spawn: Spawn) -> None:
    child = sleeper(spawn)
    info = system.process(child.pid)
    assert info is not None
    who = Identity(child.pid, info.ticks, system.boot_id())
    for other in (who.replace(ticks=info.ticks + 1), who.replace(pid=0), who.replace(pid=-1)):
        with pytest.raises(ProcessLookupError):
            system.send_signal(None, other, signal.SIGKILL)
    assert child.poll() is None
    system.send_signal(None, who, signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        system.send_signal(None, who, signal.SIGTERM)


@LINUX_ONLY
def test_a_pidfd_inode_is_one_process(spawn: Spawn) -> None:
    if not linux.CAPABILITIES.pidfs:
        assert linux.pidfd_inode(os.getpid()) == 0
        pytest.skip("this kernel's pidfds have no inode of their own (before Linux 6.9)")
    child = sleeper(spawn)
    inodes = [linux.pidfd_inode(pid) for pid in (os.getpid(), os.getpid(), child.pid, os.getppid())]
    assert inodes[0] == inodes[1]
    assert len(set(inodes)) == 3
    assert 0 not in inodes


# -- capabilities ----------------------------------------------------------------------------------


@LINUX_ONLY
@pytest.mark.parametrize("name", CAPABILITY_NAMES)
def test_each_capability_can_be_taken_away(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    linux.CAPABILITIES.forget()
    complete = linux.CAPABILITIES.asdict()
    monkeypatch.setenv("DEVSUP_WITHOUT", f"nonsense, {name}")
    linux.CAPABILITIES.forget()
    try:
        expected = complete | {name: False} | ({"pidfs": False} if name == "pidfd" else {})
        assert linux.CAPABILITIES.asdict() == expected
    finally:
        linux.CAPABILITIES.forget()


def test_the_portable_module_promises_nothing_of_linux() -> None:
    table = portable.CAPABILITIES.asdict()
    assert [name for name in CAPABILITY_NAMES if table[name]] in ([], ["boot_id"])
    assert portable.open_pidfd(os.getpid()) is None


def test_a_misspelt_capability_is_an_error() -> None:
    with pytest.raises(AttributeError):
        _ = chosen.CAPABILITIES.pidfds


@LINUX_ONLY
def test_what_is_lost_stays_lost_in_this_process() -> None:
    table = Capabilities({"pidfd": lambda: True})
    assert table.pidfd
    table.lose("pidfd")
    assert not table.pidfd


@LINUX_ONLY
def test_running_out_of_descriptors_is_not_taken_for_an_old_kernel(spawn: Spawn) -> None:
    """A capability is remembered: one moment without descriptors must not weaken the process for ever."""
    code = """
import json, os, resource
from devsup import system
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
refused = []
for ask in (lambda: system.CAPABILITIES.pidfd, lambda: system.CAPABILITIES.pidfs, system.listeners,
            lambda: system.process(os.getpid())):
    try:
        ask()
    except OSError as error:
        refused.append(error.errno)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
print(json.dumps([refused, system.CAPABILITIES.pidfd, system.CAPABILITIES.sock_diag]))
"""
    refused, pidfd, sock_diag = answer_of(spawn(code))
    assert refused == [errno.EMFILE] * 4
    assert (pidfd, sock_diag) == (linux.CAPABILITIES.pidfd, True)


def test_the_subreaper_adopts_orphans(spawn: Spawn) -> None:
    code = """
import json, os, sys
from devsup import system
if not system.become_subreaper():
    print(json.dumps([system.CAPABILITIES.subreaper]))
    sys.exit(0)
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(7)
    os._exit(0)
os.wait()
orphans = system.children(os.getpid())
os.close(writer)
print(json.dumps([len(orphans), os.waitstatus_to_exitcode(os.waitpid(orphans[0], 0)[1])]))
"""
    assert answer_of(spawn(code)) in ([1, 7], [False])
    assert answer_of(spawn(code, env={"DEVSUP_WITHOUT": "subreaper"})) == [False]
    assert answer_of(spawn(code, env={"DEVSUP_SYSTEM": "portable"})) == [False]


# -- where we are ----------------------------------------------------------------------------------


def test_boot_and_machine_have_names(system: System) -> None:
    for name in (system.boot_id(), system.machine_id(), system.pid_namespace(), system.net_namespace()):
        assert name
        assert not set(name) & set("/ \n")


@LINUX_ONLY
@pytest.mark.parametrize("module", ["linux", "portable"])
def test_a_missing_boot_id_has_a_stand_in_that_does_not_move(spawn: Spawn, module: str) -> None:
    """It is marked as one: two of these that differ prove nothing."""
    code = f"import json; from devsup.system import {module} as system; print(json.dumps(system.boot_id()))"
    first, second = (answer_of(spawn(code, env={"DEVSUP_WITHOUT": "boot_id"})) for _ in range(2))
    assert first == second
    assert first.startswith("init-")
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert answer_of(spawn(code)) == file.read().strip()


@LINUX_ONLY
@pytest.mark.parametrize("text", [None, "", "uninitialized"])
def test_a_machine_without_id_is_known_by_its_host_name(
    monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(linux, "first_line", lambda _: text)
    monkeypatch.setattr(linux, "_constants", {})
    assert linux.machine_id() == os.uname().nodename


# -- listening sockets -----------------------------------------------------------------------------

Listening = tuple[socket.socket, int]


def listen(
    stack: ExitStack, address: str, *, v6only: bool | None = None, port: int = 0, proto: int = 0
) -> Listening:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, proto))
    if v6only is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    return sock, sock.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "v6only", "seen"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.2", None, "127.0.0.2"),
        ("0.0.0.0", None, "0.0.0.0"),
        ("::1", None, "::1"),
        ("::", False, "::"),
        ("::", True, "::"),
        ("::ffff:127.0.0.1", False, "127.0.0.1"),
    ],
)
def test_a_listener_is_seen_on_every_address(
    system: System, address: str, v6only: bool | None, seen: str
) -> None:
    if address == "127.0.0.2" and sys.platform != "linux":
        pytest.skip("only Linux answers on the whole of 127/8")
    with ExitStack() as stack:
        sock, port = listen(stack, address, v6only=v6only)
        (found,) = system.listeners(port)
        assert (found.port, found.address) == (port, seen)
        assert found in system.listeners()
        assert found.inode in system.socket_inodes(os.getpid())
        if system is linux:
            assert (found.inode, found.uid) == (os.fstat(sock.fileno()).st_ino, os.getuid())
        if system.CAPABILITIES.sock_diag:
            assert found.v6only is (v6only if ":" in address else None) or address == "::1"
    assert system.listeners(port) == []


def test_the_number_of_a_listener_lasts_as_long_as_it_listens(system: System) -> None:
    """While it does, the recorded port and url hold without another look."""
    with ExitStack() as stack:
        _, port = listen(stack, "127.0.0.1")
        before = system.listeners(port)
        with ExitStack() as other:
            listen(other, "127.0.0.1")
            assert system.listeners(port) == before
        assert system.listeners(port) == before


def test_only_listening_counts(system: System) -> None:
    """A bound socket, a connection and TIME_WAIT are nobody's server."""
    with ExitStack() as stack:
        bound = stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        assert system.listeners(bound.getsockname()[1]) == []

        server, port = listen(stack, "127.0.0.1")
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection = stack.enter_context(server.accept()[0])
        assert len(system.listeners(port)) == 1
        assert system.listeners(client.getsockname()[1]) == []
        server.close()
        assert system.listeners(port) == []  # a connection goes on
        connection.close()
        client.close()
        assert system.listeners(port) == []  # TIME_WAIT


def test_a_connection_is_seen_while_it_is_open_and_after(system: System) -> None:
    """Whoever of the two ends closes first: that end waits for a minute."""
    with ExitStack() as stack:
        server, port = listen(stack, "127.0.0.1")
        assert system.connections(port) == []
        for server_first in (True, False):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            peer = client.getsockname()[1]
            accepted = stack.enter_context(server.accept()[0])
            assert [one for one in system.connections(port) if one.open] == [
                Connection(port, peer, open=True)
            ]
            first, second = (accepted, client) if server_first else (client, accepted)
            first.close()
            second.recv(1)
            second.close()
            closed = Connection(port, peer, open=False)
            wait_until(partial(_among, closed, system, port))


def _among(one: Connection, system: System, port: int) -> bool:
    return one in system.connections(port)


def test_every_listener_on_a_port_is_seen(system: System) -> None:
    with ExitStack() as stack:
        _, port = listen(stack, "127.0.0.1")
        listen(stack, "::1", port=port)
        assert sorted(found.address for found in system.listeners(port)) == ["127.0.0.1", "::1"]


@LINUX_ONLY
@pytest.mark.parametrize("without", ["", "sock_diag"])
def test_more_listeners_than_one_answer_holds_are_all_seen(
    monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    monkeypatch.setenv("DEVSUP_WITHOUT", without)
    linux.CAPABILITIES.forget()
    with ExitStack() as stack:
        stack.callback(linux.CAPABILITIES.forget)
        ports = {listen(stack, "::1" if number % 2 else "127.0.0.1")[1] for number in range(400)}
        assert ports <= {found.port for found in linux.listeners()}


@LINUX_ONLY
def test_a_multipath_listener_is_seen() -> None:
    """What Go opens by default since 1.24."""
    with ExitStack() as stack:
        try:
            sock, port = listen(stack, "127.0.0.1", proto=262)
        except OSError as error:
            pytest.skip(f"no MPTCP here: {error}")
        (found,) = linux.listeners(port)
        assert found.inode == os.fstat(sock.fileno()).st_ino


@LINUX_ONLY
def test_netlink_and_proc_agree() -> None:
    with ExitStack() as stack:
        ports = {listen(stack, address)[1] for address in ("127.0.0.1", "0.0.0.0", "::1", "::")}

        def seen(look: Callable[[int], list[Listener]]) -> set[Listener]:
            return {found.replace(v6only=None) for found in look(0) if found.port in ports}

        assert seen(_diag.by_netlink) == seen(_diag.by_proc)
        assert len(seen(_diag.by_proc)) == 4


# -- where netlink is refused ----------------------------------------------------------------------


@LINUX_ONLY
@pytest.mark.parametrize("error", ["EPERM", "EACCES", "EAFNOSUPPORT", "EPROTONOSUPPORT"])
def test_a_sandbox_without_netlink_still_sees_listeners(spawn: Spawn, error: str) -> None:
    code = """
import errno, json, socket, sys
with socket.create_server(("127.0.0.1", 0)) as sock:
    refuse(getattr(errno, sys.argv[1]), "socket")
    from devsup import system
    port = sock.getsockname()[1]
    seen = [found.port == port for found in system.listeners(port)]
    print(json.dumps([seen, system.CAPABILITIES.sock_diag]))
"""
    assert answer_of(spawn(REFUSE + code, error)) == [[True], False]


class Netlink:
    """Stands for a netlink socket whose kernel gives a prepared answer."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers = list(answers)
        self.closed = False

    def __call__(self, *_: int) -> Netlink:
        """Stand for `socket` as well."""
        return self

    def settimeout(self, _: float) -> None:
        """Answer at once."""

    def send(self, _: bytes) -> None:
        """Take any question."""

    def recv(self, _: int) -> bytes:
        """Give the next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def message(kind: int, payload: bytes) -> bytes:
    head = (16 + len(payload)).to_bytes(4, sys.byteorder) + kind.to_bytes(2, sys.byteorder) + bytes(10)
    return head + payload


@LINUX_ONLY
@pytest.mark.parametrize(
    "answer",
    [
        message(2, (-errno.ENOENT).to_bytes(4, sys.byteorder, signed=True)),  # the module is not there
        message(3, (-errno.EPERM).to_bytes(4, sys.byteorder, signed=True)),
        TimeoutError("no answer"),
        b"",
        bytes(32),
        (4096).to_bytes(4, sys.byteorder) + bytes(12),
    ],
    ids=["no module", "error at the end", "silence", "end of file", "size 0", "cut off"],
)
def test_a_netlink_that_answers_badly_is_given_up(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | OSError
) -> None:
    linux.CAPABILITIES.forget()
    netlink = Netlink(answer)
    with ExitStack() as stack:
        stack.callback(linux.CAPABILITIES.forget)
        _, port = listen(stack, "127.0.0.1")
        monkeypatch.setattr("devsup.system._diag._socket.socket", netlink)
        assert [found.port for found in linux.listeners(port)] == [port]
        assert netlink.closed
        assert not linux.CAPABILITIES.sock_diag
        assert [found.port for found in linux.listeners(port)] == [port]  # without another try


@LINUX_ONLY
def test_no_source_at_all_is_an_error_not_an_empty_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(_: int) -> list[Listener]:
        raise PermissionError(errno.EACCES, "hidden")

    monkeypatch.setattr(_diag, "by_netlink", hidden)
    monkeypatch.setattr(_diag, "by_proc", hidden)
    linux.CAPABILITIES.forget()
    try:
        with pytest.raises(PermissionError):
            linux.listeners()
    finally:
        linux.CAPABILITIES.forget()


@LINUX_ONLY
def test_a_kernel_without_ipv6_has_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_diag, "_TABLES", ("/proc/net/tcp", "/proc/net/no-such-table"))
    with ExitStack() as stack:
        _, port = listen(stack, "127.0.0.1")
        assert len(_diag.by_proc(port)) == 1


@LINUX_ONLY
def test_sockets_of_another_network_namespace_are_not_seen(spawn: Spawn) -> None:
    """A port lease is of one network namespace."""
    code = """
import ctypes, json
from devsup import system
before = system.net_namespace()
if ctypes.CDLL(None).unshare(0x40000000):
    print("skip: no network namespace for us")
else:
    print(json.dumps([system.net_namespace() != before, [found.port for found in system.listeners()]]))
"""
    with ExitStack() as stack:
        listen(stack, "127.0.0.1")
        assert answer_of(spawn(code)) == [True, []]


# -- macOS, as far as it can be tried elsewhere ---------------------------------------------------


def test_sockets_are_asked_for_one_by_one_where_the_list_is_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise psutil.AccessDenied

    with ExitStack() as stack:
        _, port = listen(stack, "127.0.0.1")
        before = portable.listeners(port)
        monkeypatch.setattr(psutil, "net_connections", refuse)
        (found,) = portable.listeners(port)
        assert [found] == before
        assert (found.pid, found.address) == (os.getpid(), "127.0.0.1")


def test_a_zombie_whose_group_is_forgotten_is_dead_all_the_same(
    monkeypatch: pytest.MonkeyPatch, spawn: Spawn
) -> None:
    def forgotten(_: int) -> int:
        raise ProcessLookupError

    child = sleeper(spawn)
    child.kill()
    wait_until(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    monkeypatch.setattr(os, "getpgid", forgotten)
    info = portable.process(child.pid)
    assert info is not None
    assert (info.dead, info.pgid) == (True, 0)


def test_a_process_that_psutil_may_not_read_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", refuse)
    with pytest.raises(PermissionError):
        portable.process(os.getpid())
    assert portable.environ(os.getpid()) is None


def test_another_psutil_still_gives_start_and_terminal() -> None:
    """Its public answers are less exact: what we take from inside it may move in a later release."""

    class Other:
        def create_time(self) -> float:
            return 1000.0

        def terminal(self) -> str:
            return "/dev/ttys001"

    tick = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 1000
    other: Any = Other()
    assert portable._ticks(other) == 1000 * tick
    assert portable._terminal(other) == 1


def test_names_of_a_mac_are_asked_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def sysctlbyname(self, name: bytes, text: Any, _size: Any, _new: None, _length: int) -> int:
            text.value = b"8E0D9F1C" if name == b"kern.bootsessionuuid" else b""
            return 0 if text.value else -1

        def gethostuuid(self, uuid: Any, _wait: Any) -> int:
            uuid[0] = 0xAB
            return 0

    monkeypatch.setattr(_core, "_LINUX", False)
    monkeypatch.setattr(_core, "_DARWIN", True)
    assert (_core.system_control("kern.bootsessionuuid"), _core.host_uuid()) == (None, None)  # not a Mac's
    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    monkeypatch.setattr(portable, "_constants", {})
    assert _core.system_control("kern.nothing") is None
    assert portable.boot_id() == "8E0D9F1C"
    assert portable.machine_id() == "ab" + 30 * "0"


# -- the house -------------------------------------------------------------------------------------


def test_both_modules_give_what_the_package_gives() -> None:
    shared = set(chosen.__all__) - {
        "PORTABLE",
        "Capabilities",
        "Connection",
        "Listener",
        "ProcessInfo",
        "was_given",
    }
    assert set(linux.__all__) == shared
    assert set(portable.__all__) == shared


def test_the_environment_chooses_the_portable_module(spawn: Spawn) -> None:
    code = (
        "import json; from devsup import system;"
        "print(json.dumps([system.PORTABLE, system.process.__module__]))"
    )
    assert answer_of(spawn(code, env={"DEVSUP_SYSTEM": "portable"})) == [True, "devsup.system.portable"]
    if sys.platform == "linux":
        assert answer_of(spawn(code)) == [False, "devsup.system.linux"]


def test_windows_is_refused_in_one_sentence(spawn: Spawn) -> None:
    code = """
import json, os, sys
from devsup.errors import UnsupportedPlatform
os.name, sys.platform = "nt", "win32"
try:
    import devsup.system
except UnsupportedPlatform as error:
    print(json.dumps([error.code, error.message, error.hint]))
"""
    name, text, hint = answer_of(spawn(code))
    assert name == "unsupported_platform"
    assert "win32" in text
    assert "WSL" in hint


def test_loading_it_costs_little(spawn: Spawn) -> None:
    """The hot lane pays for every module; psutil alone costs twice the interpreter."""
    code = """
import json, sys
before = set(sys.modules)
import devsup.ports, devsup.identity, devsup.system.portable
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    dear = {
        "psutil",
        "socket",
        "struct",
        "typing",
        "dataclasses",
        "pathlib",
        "subprocess",
        "ctypes",
        "signal",
    }
    loaded = set(json.loads(json.dumps(answer_of(spawn(code)))))
    assert loaded & dear == set()


def test_a_program_may_close_its_standard_streams(spawn: Spawn) -> None:
    """Descriptors 0 to 2 are then given to what is opened next."""
    code = """
import json, os
from devsup import identity, system
for stream in 0, 2:
    os.close(stream)
print(json.dumps([identity.liveness(identity.me()).value, system.process(os.getpid()) is not None]))
"""
    child = spawn(code)
    say(child, "")
    assert answer_of(child) == ["alive", True]

"""Who listens where, by every source there is; and which port an app gets."""

from __future__ import annotations

import _socket
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity, ports
from devsup import system as chosen
from devsup.models import Row
from devsup.system import linux, portable
from tests.kernel import LINUX_ONLY
from tests.support import free_port, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devsup.models import Identity
    from devsup.system import Listener
    from tests.support import Spawn

#: A server on a port of its own choice, which it prints.
SERVER = """
import socket, sys
sock = socket.create_server(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""


def no_source(_: int = 0) -> list[Listener]:
    raise OSError(errno.EACCES, "no source of listening sockets")


@pytest.fixture(params=["netlink", "proc", "portable", "bind"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let the answers come from this source alone."""
    name: str = request.param
    if name in {"netlink", "proc"} and sys.platform != "linux":
        pytest.skip("of Linux")
    if name == "portable":
        monkeypatch.setattr(ports, "system", portable)
    if name == "proc":
        monkeypatch.setenv("DEVSUP_WITHOUT", "sock_diag")
    if name == "bind":
        monkeypatch.setattr(ports.system, "listeners", no_source)  # type: ignore[attr-defined]
    chosen.CAPABILITIES.forget()
    yield name
    monkeypatch.undo()
    chosen.CAPABILITIES.forget()


class Occupant:
    """Sockets of one test."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.port = free_port()

    def bind(self, address: str, *, v6only: bool | None = None) -> socket.socket:
        """Bind without listening."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self.stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if v6only is not None:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, self.port))
        return sock

    def listen(self, address: str, *, v6only: bool | None = None) -> socket.socket:
        """Bind and listen."""
        sock = self.bind(address, v6only=v6only)
        sock.listen()
        return sock


@pytest.fixture
def occupant() -> Iterator[Occupant]:
    with ExitStack() as stack:
        yield Occupant(stack)


# -- in use or not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "v6only"),
    [
        ("127.0.0.1", None),
        ("0.0.0.0", None),
        ("::", False),
        ("::", True),
        ("::1", None),
        ("127.0.0.2", None),
    ],
)
def test_a_listener_on_any_address_takes_the_port(
    source: str, occupant: Occupant, address: str, v6only: bool | None
) -> None:
    """`localhost` is one address or the other: half a port is no free port."""
    if address == "127.0.0.2" and sys.platform != "linux":
        pytest.skip("only Linux answers on the whole of 127/8")
    assert ports.is_free(occupant.port)
    sock = occupant.listen(address, v6only=v6only)
    assert not ports.is_free(occupant.port)
    holder = ports.holder(occupant.port, [])
    assert holder is not None
    if source != "bind":
        assert holder.pid == os.getpid()
        assert holder.address == address
    sock.close()
    assert ports.is_free(occupant.port)
    assert ports.holder(occupant.port, []) is None


@pytest.mark.usefixtures("source")
def test_what_is_bound_but_does_not_listen_takes_nothing(occupant: Occupant) -> None:
    occupant.bind("127.0.0.1")
    assert ports.is_free(occupant.port)


@pytest.mark.usefixtures("source")
def test_a_closed_connection_that_lingers_takes_nothing(occupant: Occupant) -> None:
    """TIME_WAIT stays for a minute: a stop and a start would fail for as long."""
    server = occupant.listen("127.0.0.1")
    with socket.create_connection(("127.0.0.1", occupant.port)) as client:
        connection, _ = server.accept()
        server.close()
        connection.close()  # the server's side closes first, so the wait is on its port
        assert client.recv(1) == b""
    assert ports.is_free(occupant.port)


@pytest.mark.usefixtures("source")
def test_a_port_below_1024_is_not_in_use_because_it_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(_socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, f"{address} is for root")

    monkeypatch.setattr("devsup.ports._socket.socket", Forbidden)
    assert ports._can_bind(80)


def test_without_ipv6_the_bind_falls_back(occupant: Occupant, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(_socket.socket):
        def __init__(self, family: int, *rest: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            super().__init__(family, *rest)

    monkeypatch.setattr("devsup.ports._socket.socket", Old)
    assert ports._can_bind(occupant.port)
    monkeypatch.undo()
    occupant.listen("127.0.0.1")
    monkeypatch.setattr("devsup.ports._socket.socket", Old)
    assert not ports._can_bind(occupant.port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_where_sockets_of_others_are_hidden_a_connect_tells(
    occupant: Occupant, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """On macOS a bind to all addresses succeeds beside a listener on one of them."""
    monkeypatch.setattr(ports.system, "listeners", lambda _: [])  # type: ignore[attr-defined]
    monkeypatch.setattr(ports.system, "sees_all_listeners", lambda: False)  # type: ignore[attr-defined]
    monkeypatch.setattr(ports, "_can_bind", lambda _: True)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ports.is_free(occupant.port)
    occupant.listen(address)
    assert not ports.is_free(occupant.port)
    assert ports.holder(occupant.port, []) == ports.Holder(occupant.port, "", None, None, None, None)


def test_the_check_leaves_no_socket_behind(source: str, occupant: Occupant) -> None:
    del source
    before = os.listdir("/dev/fd")
    for _ in range(3):
        ports.is_free(occupant.port)
        ports.holder(occupant.port, [])
        ports._answers(occupant.port)
    assert os.listdir("/dev/fd") == before


# -- who -------------------------------------------------------------------------------------------


def row(**fields: Any) -> Row:
    return Row(
        **{
            "id": "s1",
            "generation": 1,
            "scope": identity.here().key,
            "netns": "-",
            "project": "/p",
            "session": "dev_server_web",
            "app": "web",
            "kind": "next",
            "cwd": "/p",
            "command": ["next"],
            "log": "/dev/null",
            "owner": None,
            "started_at": 0,
            **fields,
        }
    )


def serving(spawn: Spawn, code: str = SERVER, **options: Any) -> tuple[subprocess.Popen[str], int]:
    child = spawn(code, **options)
    return child, int(hear(child))


def known(pid: int) -> Identity:
    who = identity.of(pid)
    assert who is not None
    return who


def test_the_holder_is_named(source: str, spawn: Spawn, temporary: Path) -> None:
    """So that the answer to "port taken" is who, where and how to end it, not `lsof`."""
    child, port = serving(spawn, cwd=temporary)
    holder = ports.holder(port, [])
    assert holder is not None
    if source == "bind":  # it tells that somebody is there, not who
        assert holder.details() == {"pid": None, "command": None, "cwd": None, "ours": None}
        return
    assert (holder.port, holder.address, holder.pid) == (port, "127.0.0.1", child.pid)
    assert (holder.cwd, holder.ours, holder.uid) == (str(temporary), None, os.getuid())
    assert holder.command is not None
    assert holder.command.startswith(f"{sys.executable} -c")
    assert holder.details() == {
        "pid": child.pid,
        "command": holder.command,
        "cwd": str(temporary),
        "ours": None,
    }
    assert [found.port for found in ports.listening(port)] == [port]


def test_a_holder_that_cannot_be_looked_at_is_still_a_holder(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's server: its descriptors are not ours to read."""
    _, port = serving(spawn)
    monkeypatch.setattr(ports.system, "socket_inodes", lambda _: set())  # type: ignore[attr-defined]
    holder = ports.holder(port, [row()])
    assert holder is not None
    assert (holder.address, holder.pid, holder.command, holder.ours) == ("127.0.0.1", None, None, None)
    assert holder.uid == os.getuid()
    (found,) = ports.listening(port)
    holder = ports.holder(port, [row(), row(id="s2", listener_inode=found.inode)])
    assert holder is not None
    assert holder.ours == "s2"


@LINUX_ONLY
def test_another_users_holder_is_known_by_its_user(spawn: Spawn) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    code = "import os, socket\nos.setgid(65534); os.setuid(65534)\n" + SERVER
    child, port = serving(spawn, code)
    holder = ports.holder(port, [])
    assert holder is not None
    assert (holder.pid, holder.uid) == (child.pid, 65534)


def test_our_listener_is_known_by_its_socket(spawn: Spawn) -> None:
    child, port = serving(spawn)
    (found,) = ports.listening(port)
    holder = ports.holder(port, [row(), row(id="s2", listener_inode=found.inode, listener_pid=child.pid)])
    assert holder is not None
    assert (holder.pid, holder.ours) == (child.pid, "s2")


def test_our_listener_is_known_by_its_ancestors(spawn: Spawn) -> None:
    """npm, sh, node, next-server: the one that listens is a grandchild, and its socket may be new."""
    wrapper = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SERVER!r}])"
    child, port = serving(spawn, wrapper)
    for field in ("leader", "guard"):
        holder = ports.holder(port, [row(), row(id="s2", **{field: known(child.pid)})])
        assert holder is not None
        assert holder.pid not in {None, child.pid}
        assert holder.ours == "s2"


def test_a_stranger_is_not_ours_by_an_old_pid(spawn: Spawn) -> None:
    """A row whose leader has ended may name a pid that somebody else has now."""
    child, port = serving(spawn)
    old = known(child.pid)
    old = old.replace(ticks=old.ticks - 1, inode=old.inode and old.inode - 1)
    holder = ports.holder(port, [row(leader=old, guard=old, listener_pid=child.pid, port=port)])
    assert holder is not None
    assert (holder.pid, holder.ours) == (child.pid, None)


@pytest.mark.parametrize(("call", "group"), [("setsid", 0), ("setpgrp", None)])  # pnpm 12 does the first
def test_our_listener_is_known_by_its_session_when_its_leader_has_ended(
    spawn: Spawn, call: str, group: int | None
) -> None:
    """After npm was killed by hand, what it started serves on, a child of nobody we know."""
    code = f"""
import os, signal, subprocess, sys
os.{call}()
print(os.getpid(), flush=True)
subprocess.Popen([sys.executable, "-c", {SERVER!r}], process_group={group})
signal.pause()
"""
    outer = spawn(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}]); sys.stdin.read()"
    )
    who = known(int(hear(outer)))
    port = int(hear(outer))
    assert identity.signal(who, signal.SIGKILL)
    wait_until(lambda: identity.is_gone(who))
    holder = ports.holder(port, [row(), row(id="s2", leader=who)])
    assert holder is not None
    assert holder.ours == "s2"
    # A leader that started after the listener had its number later: no relation.
    holder = ports.holder(port, [row(id="s2", leader=who.replace(ticks=who.ticks + 10**6))])
    assert holder is not None
    assert holder.ours is None


@LINUX_ONLY
def test_of_several_listeners_one_that_can_be_found_is_named(
    occupant: Occupant, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupant.listen("127.0.0.1")
    second = occupant.listen("::1")
    only = {os.fstat(second.fileno()).st_ino}
    monkeypatch.setattr(
        ports.system,  # type: ignore[attr-defined]
        "socket_inodes",
        lambda pid: only if pid == os.getpid() else set(),
    )
    holder = ports.holder(occupant.port, [])
    assert holder is not None
    assert (holder.address, holder.pid) == ("::1", os.getpid())


@LINUX_ONLY
def test_a_server_that_rewrites_its_title_is_named_by_it(
    occupant: Occupant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """next-server does; what is left of its arguments are NULs."""
    occupant.listen("127.0.0.1")
    monkeypatch.setattr(linux, "read", lambda _: b"next-server (v16.4.5)" + bytes(80))
    holder = ports.holder(occupant.port, [])
    assert holder is not None
    assert holder.command == "next-server (v16.4.5)"


@LINUX_ONLY
def test_a_node_server_is_seen(spawn: Spawn) -> None:
    """The servers this is for listen dual-stack, with threads and many descriptors."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here")
    script = "const s = require('http').createServer().listen(0, () => console.log(s.address().port))"
    code = f"""
import subprocess, sys
server = subprocess.Popen([{node!r}, "-e", {script!r}])
sys.stdin.read()
server.kill()
server.wait()
"""
    child = spawn(code)
    port = int(hear(child))
    (found,) = ports.listening(port)
    assert (found.address, found.v6only) == ("::", False)
    holder = ports.holder(port, [row(leader=known(child.pid))])
    assert holder is not None
    assert holder.ours == "s1"
    assert holder.command is not None
    assert holder.command.startswith(node)
    say(child, "")
    child.communicate()
    wait_until(lambda: ports.is_free(port))


# -- automatic ports -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("range_", "first", "last"),
    [
        ("32768\t60999\n", 10000, 32767),
        ("15000 65535\n", 10000, 14999),
        ("49152 65535\n", 10000, 32767),
        ("10050 40000\n", 40001, 65535),
        ("1024 40000\n", 40001, 65535),
        ("1024 65535\n", 10000, 32767),
        ("", 10000, 32767),
    ],
)
def test_automatic_ports_keep_out_of_the_way_of_connections(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, range_: str, first: int, last: int
) -> None:
    """An outgoing connection on the port would make a start fail once in a while."""
    file = temporary / "range"
    file.write_text(range_)
    monkeypatch.setattr(ports, "_RANGE_FILE", str(file))
    found = ports.auto_range()
    assert (found[0], found[-1]) == (first, last)


def test_the_range_of_this_system_is_read() -> None:
    low, high = ports.ephemeral()
    assert 1024 <= low < high < 65536
    assert not {*ports.auto_range()} & {*range(low, high + 1)} or low <= ports.AUTO_FIRST

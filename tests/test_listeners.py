"""Listeners that are replaced, that come late, and commands that have none."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, readiness, system
from devsup.supervisor.view import Life, Sockets
from tests.serving import Servers, alive, next_app, pid_at, process, script
from tests.support import free_port, is_listening, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from devsup.tree import Tree
    from tests.support import Devsup

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


# -- a listener that is replaced -------------------------------------------------------------------


def test_a_replaced_listener_is_followed(servers: Servers) -> None:
    """Next.js starts its server anew when its config was edited: a new pid after 0.2 s on the same port."""
    (servers.project / "next.config.mjs").write_text("export default {}\n")
    next_app(servers.project, *server_argv("next_like"))
    port = free_port()
    server = servers.start("web", port=port)
    old = process(pid_at(server["url"]))
    (servers.project / "next.config.mjs").write_text("export default { edited: true }\n")
    wait_until(lambda: not alive(old))
    now = servers.state_becomes("web", "ready")
    assert (now["pid"], now["port"], now["url"]) == (server["pid"], port, server["url"])
    assert pid_at(now["url"]) != old.pid
    assert servers.stop("web")["signals"] == ["SIGTERM"]
    servers.nothing_stays(port)


def test_a_config_that_breaks_while_it_runs_is_a_crash(servers: Servers) -> None:
    (servers.project / "next.config.mjs").write_text("export default {}\n")
    next_app(servers.project, *server_argv("next_like"))
    port = free_port()
    servers.start("web", port=port)
    (servers.project / "next.config.mjs").write_text("throw new Error('boom')\n")
    crashed = servers.state_becomes("web", "crashed")
    assert crashed["exit_code"] == 1
    servers.devsup("stop", "web")
    servers.nothing_stays(port)


MOVING = """
import os, signal
from stand_in import listen, obey, out, pause, serve, shown, start, wanted_port
if len(sys.argv) == 3:
    obey()
    listener = listen(int(sys.argv[2]))
    out(f"- Local:  {shown('', int(sys.argv[2]))}")
    serve(listener)
def listener_on(port):
    return start([sys.executable, sys.argv[0], "on", str(port)])
child = listener_on(wanted_port())
while not os.path.exists("move"):
    pause(0.01)
os.kill(child, signal.SIGTERM)
os.waitpid(child, 0)
with open("move") as file:
    child = listener_on(file.read())
os.waitpid(child, 0)
"""


def test_a_listener_is_followed_to_a_port_that_another_server_has_leased(servers: Servers) -> None:
    """The lease keeps two starts apart; what a server does later is only reported."""
    leased, elsewhere, port = free_port(), free_port(), free_port()
    servers.stand_in("other", "web", "--port", elsewhere, port=leased)
    moving = script(servers.project, "moving", MOVING)
    server = servers.start("web", *moving, port=port)
    temporary = servers.project / "move.new"
    temporary.write_text(str(leased))
    temporary.rename(servers.project / "move")

    def followed() -> bool:
        now = servers.find("web")
        return (now["state"], now["url"]) == ("ready", f"http://localhost:{leased}")

    wait_until(followed)
    assert pid_at(leased) != server["pid"]
    # Written down too, not only seen by who looks: the guard has followed it.
    rows = servers.rows()
    wait_until(lambda: {row.session: row.port for row in servers.rows()}["dev_server_web"] == leased)
    assert {row.session: row.asked_port for row in rows}["dev_server_web"] == port
    for name in ("web", "other"):
        assert servers.stop(name)["outcome"] == "stopped"
    servers.nothing_stays(port, leased, elsewhere)


GOING = """
import os
from stand_in import listen, obey, pause, serve, sleep_forever, wanted_port
obey()
if os.fork() == 0:
    serve(listen(wanted_port()))
sleep_forever()
"""


def test_a_server_without_a_listener_is_unhealthy_and_well_again_with_one(servers: Servers) -> None:
    """Nothing took the place of the listener; the tree lives and may still think better of it."""
    code = GOING.replace(
        "sleep_forever()\n",
        'while not os.path.exists("again"):\n    pause(0.01)\nserve(listen(wanted_port()))\n',
    )
    port = free_port()
    server = servers.start("web", *script(servers.project, "going", code), port=port)
    process(pid_at(server["url"])).kill()
    wait_until(lambda: "unhealthy" in servers.events(server), 15)
    assert servers.find("web")["state"] == "unhealthy"
    (servers.project / "again").touch()
    wait_until(lambda: servers.events(server).count("ready") == 2)
    assert pid_at(servers.find("web")["url"]) == server["pid"]
    servers.stop("web")
    servers.nothing_stays(port)


# -- commands without a port -----------------------------------------------------------------------


def test_a_command_without_a_port_runs_after_a_second(servers: Servers) -> None:
    answer = servers.try_start("job", sys.executable, "-c", "import signal; signal.pause()")
    server = answer.data["server"]
    assert (server["state"], server["port"], server["url"]) == ("running", None, None)
    assert answer.data["waited_ms"] >= 1000
    assert servers.find("job")["state"] == "running"
    result = servers.stop("job")
    assert (result["outcome"], result["port_free"]) == ("stopped", None)
    servers.nothing_stays()


def test_a_command_without_a_port_is_ready_when_its_tree_listens(servers: Servers) -> None:
    port = free_port()
    command = server_argv("npm_like", "--port", port)
    answer = servers.try_start("job", *command)
    server = answer.data["server"]
    assert (server["state"], server["port"], server["url"]) == ("ready", port, f"http://localhost:{port}")
    assert servers.stop("job")["port_free"]
    servers.nothing_stays(port)


def test_a_command_that_listens_late_is_ready_then(servers: Servers) -> None:
    code = """
import os
from stand_in import listen, obey, pause, serve, wanted_port
obey()
while not os.path.exists("go"):
    pause(0.01)
serve(listen(wanted_port()))
"""
    port = free_port()
    server = servers.start("job", *script(servers.project, "late", code), "--port", port)
    assert server["state"] == "running"
    (servers.project / "go").touch()
    now = servers.state_becomes("job", "ready")
    assert (now["port"], now["url"]) == (port, f"http://localhost:{port}")
    servers.stop("job")
    servers.nothing_stays(port)


def test_a_command_without_a_port_may_end_with_0(servers: Servers) -> None:
    answer = servers.try_start("job", sys.executable, "-c", "print('done')")
    server = answer.data["server"]
    assert (server["state"], server["exit_code"], server["signal"]) == ("exited", 0, None)
    assert servers.log(server) == "done\n"
    servers.nothing_stays()


def test_a_command_that_ran_may_end_with_0_later(servers: Servers) -> None:
    code = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"
    assert servers.start("job", sys.executable, "-c", code)["state"] == "running"
    (servers.project / "go").touch()
    assert servers.state_becomes("job", "exited")["exit_code"] == 0


def test_a_command_that_fails_is_told_with_its_last_words(servers: Servers) -> None:
    details = servers.failed("job", *server_argv("crasher", "--code", "3"))
    assert (details["exit_code"], details["signal"]) == (3, None)
    assert details["log_tail"].endswith("Error: Cannot find module 'missing'\n")
    assert "a module cannot be found" in details["cause"]
    assert details["server"]["state"] == "crashed"
    servers.nothing_stays()


def test_a_command_that_is_killed_is_told_with_its_signal(servers: Servers) -> None:
    details = servers.failed("job", "sh", "-c", "kill -9 $$")
    assert (details["exit_code"], details["signal"]) == (None, 9)
    assert "out of memory" in details["cause"]
    servers.nothing_stays()


def test_a_command_that_puts_itself_into_the_background_is_tracked(servers: Servers) -> None:
    """Its leader has ended with 0; what it left runs on until it ends too."""
    port = free_port()
    server = servers.stand_in("job", "daemon_holder", "--leave", "--port", port)
    daemon = process(pid_at(port))
    assert server["pid"] != daemon.pid
    wait_until(lambda: servers.find("job")["url"] == f"http://localhost:{port}")
    os.kill(daemon.pid, 15)
    servers.state_becomes("job", "exited")
    servers.devsup("stop", "job")
    servers.nothing_stays(port)


# -- whose a socket is -----------------------------------------------------------------------------

#: Starts the program in its last arguments as a child, or as an orphan of its own session and group.
PARENT = """
import os, sys, time
if os.fork() == 0:
    if sys.argv[1] == "orphan":
        os.setsid()
        if os.fork():
            os._exit(0)
    os.execv(sys.argv[2], sys.argv[2:])
time.sleep(1000)
"""
LATE = """
import os, socket, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["child", "orphan"])
def test_a_list_looks_for_addresses_only_where_a_socket_may_be_the_servers(
    servers: Servers, temporary: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """With an editor's socket about, a hundred servers without a port were each looked at in full."""
    looked: list[str] = []
    find = readiness.find

    def find_and_tell(tree: Tree, **how: Any) -> readiness.Found | None:
        looked.append(tree.id)
        return find(tree, **how)

    monkeypatch.setattr(readiness, "find", find_and_tell)
    devsup = Supervisor(str(servers.project), str(servers.home))
    gate = temporary / "gate"
    late = [*script(temporary, "late", LATE), str(gate)]
    idle = servers.start("idle", "sleep", "1000")
    servers.start("late", *script(temporary, "parent", PARENT), how, *late)
    with socket.socket() as editor:
        editor.bind(("127.0.0.1", 0))
        editor.listen()
        assert [server.state.value for server in devsup.list().servers] == ["running", "running"]
        assert looked == [], "no socket is theirs"
        gate.touch()
        assert is_listening(wait_until(lambda: devsup.list().servers[1].port or 0))
        assert idle["id"] not in looked
        # As a list sees it that comes before the guard has written the address down.
        rows = {row.app: row.replace(listener_inode=None) for row in servers.rows()}
        sockets = Sockets(list(rows.values()))
        assert sockets.may_be_of(rows["late"], Life.LIVE)
        assert not sockets.may_be_of(rows["idle"], Life.LIVE)
    servers.stop("idle")
    servers.stop("late")


def test_what_listened_before_is_no_servers_own(servers: Servers) -> None:
    """An editor that listens all day costs a list nothing, however many servers without a port there are."""
    with socket.socket() as editor, pytest.MonkeyPatch.context() as patch:
        editor.bind(("127.0.0.1", 0))
        editor.listen()
        servers.start("idle", "sleep", "1000")
        (row,) = servers.rows()
        known = set(row.strangers or ())
        assert os.fstat(editor.fileno()).st_ino in known
        listeners = [one for one in system.listeners() if one.inode in known]
        patch.setattr("devsup.system.listeners", lambda: listeners)
        patch.setattr("devsup.system.children", lambda _: pytest.fail("looked into its processes"))
        sockets = Sockets([row])
        assert sockets.unclaimed
        assert not sockets.may_be_of(row, Life.LIVE)
    servers.stop("idle")

"""Ready means that our tree answers on its own socket; nothing less does, and nothing else is waited for."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving import Servers, expo_app, next_app, pid_at, script
from tests.support import fetch, free_port, is_listening, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup, DevsupPopen, StandIn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


# -- looks ready, and is not -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [1, 0])
def test_ready_with_an_open_port_and_then_gone(servers: Servers, code: int) -> None:
    """Next.js 16 says Ready before it has its lock and its config; 15 then even exits with 0."""
    next_app(servers.project, *server_argv("ready_then_exit", "--after", "0.4", "--code", code))
    port = free_port()
    details = servers.failed("web", port=port)
    assert (details["exit_code"], details["signal"]) == (code, None)
    assert "✓ Ready in" in details["log_tail"]
    assert details["cause"] == "next.config fails to load"
    assert "ready" not in servers.events(details["server"])
    servers.nothing_stays(port)


def _blinked(servers: Servers, port: int) -> dict[str, Any]:
    """Start a server whose port opens for a moment first: again where a busy machine made more of that."""
    for _ in range(5):
        server = servers.stand_in("web", "port_blink", "--gap", "0.5", port=port)
        if "Waiting on" in servers.log(server):
            break
        wait_until(lambda server=server: "Waiting on" in servers.log(server))  # type: ignore[misc]
        seconds = re.search(r"open for ([0-9.]+) s", servers.log(server))
        assert seconds
        assert float(seconds[1]) > 0.06, "what is open for less is no server"
        servers.stop("web")
    return server


@pytest.mark.parametrize("kind", ["command", "expo"])
def test_a_port_that_opens_for_a_moment_is_not_ready(servers: Servers, kind: str) -> None:
    """Expo tests its port by listening on it."""
    port = free_port()
    if kind == "expo":
        expo_app(servers.project, *server_argv("metro_like", "--gap", "0.5"))
        server = servers.start("mobile", port=port)
    else:
        server = _blinked(servers, port)
    assert fetch(server["url"])[0] == 200
    text = servers.log(server)
    assert "Waiting on" in text  # printed after the second opening
    servers.stop(server["pid"])
    servers.nothing_stays(port)


#: Waits for the file `go` before it becomes the rest of its command line.
GATE = """
import os
from stand_in import pause
open("at the gate", "w").close()
while not os.path.exists("go"):
    pause(0.01)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("program", "code", "cause", "said"),
    [
        (["exit_zero"], 0, "the port is already in use", "EADDRINUSE"),
        (["web"], 1, "the port is already in use", "already in use"),
        (["next_like"], 1, "the port is already in use", "EADDRINUSE"),
    ],
    ids=["exits with 0", "exits with 1", "Next.js 16"],
)
def test_a_port_taken_between_check_and_bind(
    servers: Servers,
    devsup_popen: DevsupPopen,
    stand_in: StandIn,
    program: list[str],
    code: int,
    cause: str,
    said: str,
) -> None:
    """The stranger answers on the port asked for while ours dies: its answers are not ours."""
    gate = script(servers.project, "gate", GATE)
    next_app(servers.project, *gate, *server_argv(*program))
    _lose_the_port(servers, devsup_popen, stand_in, "web", code, cause, said)


def test_expo_that_skips_a_taken_port_has_failed(
    servers: Servers, devsup_popen: DevsupPopen, stand_in: StandIn
) -> None:
    """Expo 53 asks whether to use another one, gets no answer, and exits with 0."""
    gate = script(servers.project, "gate", GATE)
    expo_app(servers.project, *gate, *server_argv("metro_like", "--skip-code", "0"))
    cause = "the port is already in use"
    _lose_the_port(servers, devsup_popen, stand_in, "mobile", 0, cause, "Skipping dev server")


def _lose_the_port(
    servers: Servers,
    devsup_popen: DevsupPopen,
    stand_in: StandIn,
    app: str,
    code: int,
    cause: str,
    said: str,
) -> None:
    port = free_port()
    starting = devsup_popen("start", app, "--json", "--port", port)
    wait_until((servers.project / "at the gate").exists, 30)
    stranger = stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port))
    (servers.project / "go").touch()
    out, err = starting.communicate(timeout=120)
    answer = servers.answer(starting, out, err)
    assert (answer.code, answer.error["code"]) == (5, "exited_early"), answer
    details = answer.error["details"]
    assert (details["exit_code"], details["cause"]) == (code, cause)
    assert said in details["log_tail"]
    assert pid_at(port) == stranger.pid
    assert servers.listed() == []


def test_a_failed_start_with_0_though_the_port_was_open(servers: Servers) -> None:
    next_app(servers.project, *server_argv("exit_zero", "--always"))
    port = free_port()
    details = servers.failed("web", port=port)
    assert (details["exit_code"], details["cause"]) == (0, "there is no `app` or `pages` folder")
    servers.nothing_stays(port)


# -- ready, and where ------------------------------------------------------------------------------


def test_a_server_that_moved_to_another_port_is_found_there(
    servers: Servers, devsup_popen: DevsupPopen, stand_in: StandIn
) -> None:
    port = free_port()
    command = [*script(servers.project, "gate", GATE), *server_argv("port_mover")]
    starting = devsup_popen(*servers.start_args("web", *command, port=port))
    wait_until((servers.project / "at the gate").exists, 30)
    stranger = stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port))
    (servers.project / "go").touch()
    out, err = starting.communicate(timeout=120)
    answer = servers.answer(starting, out, err)
    server = answer.data["server"]
    assert server["port"] != port
    assert server["url"] == f"http://localhost:{server['port']}"
    assert pid_at(server["url"]) == server["pid"] != stranger.pid
    assert any(str(port) in note and str(server["port"]) in note for note in answer.notes), answer.notes
    result = servers.stop("web")
    assert (result["outcome"], result["port_free"]) == ("stopped", True)
    assert pid_at(port) == stranger.pid
    servers.nothing_stays(server["port"])


EARLY = """
import os
from stand_in import listen, obey, out, pause, serve, wanted_port
obey()
early = listen(int(sys.argv[1]))
out(*sys.argv[2:])
if os.fork() == 0:
    serve(early)
early.close()
pause(0.6)
serve(listen(wanted_port()))
"""


@pytest.mark.parametrize("kind", ["command", "next"])
def test_a_debugger_that_listens_first_is_not_the_server(servers: Servers, kind: str) -> None:
    """It even answers HTTP; nothing is said of it, but it is not the port that was asked for."""
    early, port = free_port(), free_port()
    command = script(servers.project, "early", EARLY)
    if kind == "next":
        next_app(servers.project, *command, early)
        server = servers.start("web", port=port)
    else:
        server = servers.start("web", *command, early, port=port)
    assert (server["port"], server["url"]) == (port, f"http://localhost:{port}")
    servers.stop("web")
    servers.nothing_stays(port, early)


def test_a_debugger_is_known_by_what_node_says_of_it(servers: Servers) -> None:
    """Nobody asked for a port, so the first one could be the server's."""
    early, port = free_port(), free_port()
    line = f"Debugger listening on ws://127.0.0.1:{early}/5e1d6cba-6a4e-4cd8-a6b9-6d4a3e1a9a5f"
    command = script(servers.project, "early", EARLY)
    server = servers.start("web", *command, early, line, flags=["--env", f"PORT={port}"])
    assert (server["state"], server["url"]) == ("ready", f"http://localhost:{port}")
    servers.stop("web")
    servers.nothing_stays(port, early)


WITH_ADB = """
import os
from stand_in import listen, obey, pause, serve, sleep_forever, start, wanted_port
obey()
os.symlink(os.path.realpath(sys.executable), "adb")
code = "import signal, socket; held = socket.create_server(('127.0.0.1', %s)); signal.pause()" % sys.argv[1]
adb = start([os.path.abspath("adb"), "-ISc", code], session=True, quiet=True)
pause(0.4)
if sys.argv[2:]:
    sleep_forever()
serve(listen(wanted_port()))
"""


@pytest.mark.parametrize("serves", [True, False])
def test_a_shared_program_that_listens_is_not_the_server(servers: Servers, serves: bool) -> None:
    """React Native starts adb, which listens for every project of the user."""
    shared, port = free_port(), free_port()
    command = [*script(servers.project, "with_adb", WITH_ADB), str(shared)]
    if serves:
        server = servers.start("web", *command, port=port)
        assert (server["state"], server["port"]) == ("ready", port)
    else:
        server = servers.start("web", *command, "idle")
        assert (server["state"], server["port"], server["url"]) == ("running", None, None)
    wait_until(lambda: is_listening(shared))
    result = servers.stop("web", "--sweep")
    assert (result["outcome"], result["left_running"]) == ("stopped", [])
    servers.nothing_stays(port, shared)


def test_a_server_that_moved_and_says_nothing_is_found_after_a_while(servers: Servers) -> None:
    port, moved = free_port(), free_port()
    code = "from stand_in import listen, obey, serve\nobey()\nserve(listen(int(sys.argv[1])))"
    answer = servers.try_start("web", *script(servers.project, "mute", code), moved, port=port)
    assert answer.data["server"]["url"] == f"http://localhost:{moved}"
    assert any(str(moved) in note for note in answer.notes)
    servers.stop("web")
    servers.nothing_stays(port, moved)


@pytest.mark.parametrize("kind", ["command", "next"])
@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("", "localhost")])
def test_the_url_names_the_address_it_listens_on(servers: Servers, kind: str, host: str, url: str) -> None:
    """`localhost` may mean either address, so it is said only where both answer."""
    port = free_port()
    if kind == "next":
        next_app(servers.project, *server_argv("next_like", *(["-H", host] if host else [])))
        server = servers.start("web", port=port)
    else:
        server = servers.stand_in("web", "web", *(["--host", host] if host else []), port=port)
    assert (server["port"], server["url"]) == (port, f"http://{url}:{port}")
    assert pid_at(server["url"])
    assert servers.stop("web")["port_free"]
    servers.nothing_stays(port)


@pytest.mark.parametrize("kind", ["command", "next"])
def test_a_server_of_tls_alone_has_an_https_url(servers: Servers, kind: str) -> None:
    port = free_port()
    if kind == "next":
        next_app(servers.project, *server_argv("tls_web"))
        server = servers.start("web", port=port)
    else:
        server = servers.stand_in("web", "tls_web", port=port)
    assert server["url"] == f"https://localhost:{port}"
    servers.stop("web")
    servers.nothing_stays(port)


POLITE_TLS = """
import os, socket, ssl
from stand_in import SERVERS, listen, obey, render, wanted_port
obey()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.path.join(sys.path[0], "localhost.pem"))
listener = listen(wanted_port())
while True:
    connection = listener.accept()[0]
    connection.settimeout(5)
    try:
        if connection.recv(1, socket.MSG_PEEK) == b"G":
            connection.recv(65536)
            text = "Client sent an HTTP request to an HTTPS server."
            connection.sendall(render((400, {}, text)))
        else:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(render((200, {}, "yes")))
    except OSError:
        pass
    connection.close()
""".replace("SERVERS, ", "")


def test_a_tls_server_that_answers_clear_text_with_an_error(servers: Servers) -> None:
    """It prints no address: only its answer tells."""
    next_app(servers.project, *script(servers.project, "polite", POLITE_TLS))
    port = free_port()
    assert servers.start("web", port=port)["url"] == f"https://localhost:{port}"
    servers.stop("web")
    servers.nothing_stays(port)


def test_a_server_that_speaks_of_https_and_does_not_speak_it_is_ready(servers: Servers) -> None:
    """Another program before it may add TLS; what its own socket speaks is what is asked."""
    code = """
from stand_in import listen, obey, out, render, wanted_port
obey()
listener = listen(wanted_port())
out(f"Open https://localhost:{wanted_port()}")
while True:
    connection = listener.accept()[0]
    if connection.recv(65536).startswith(b"GET"):
        connection.sendall(render((200, {}, "yes")))
    connection.close()
"""
    next_app(servers.project, *script(servers.project, "boasting", code))
    port = free_port()
    assert servers.start("web", port=port)["url"] == f"http://localhost:{port}"
    servers.stop("web")
    servers.nothing_stays(port)


def test_a_server_whose_page_is_broken_is_ready(servers: Servers) -> None:
    """The page does not compile; the server is up, and the next edit mends it."""
    next_app(servers.project, *server_argv("broken_page"))
    port = free_port()
    server = servers.start("web", port=port)
    assert server["state"] == "ready"
    assert fetch(server["url"])[0] == 500
    servers.stop("web")
    servers.nothing_stays(port)


def test_next_without_the_status_route_is_ready(servers: Servers) -> None:
    next_app(servers.project, *server_argv("next_like", "--no-status"))
    port = free_port()
    server = servers.start("web", port=port)
    assert (server["kind"], server["state"]) == ("next", "ready")
    assert "GET / " not in servers.log(server)  # a probe of a page would compile it and log a line
    servers.stop("web")
    servers.nothing_stays(port)


# -- not ready yet ---------------------------------------------------------------------------------

SLOW_TO_WAKE = """
import os
from stand_in import answer, listen, obey, pause, serve, wanted_port
obey()

def reply(method, path):
    while not os.path.exists("wake"):
        pause(0.01)
    return answer(method, path)

serve(listen(wanted_port()), answer=reply)
"""


def test_a_server_that_never_answers_goes_on_starting(servers: Servers) -> None:
    """It accepts connections and is silent, as a hung one; `devsup wait` sees it through."""
    next_app(servers.project, *script(servers.project, "slow", SLOW_TO_WAKE))
    port = free_port()
    answer = servers.try_start("web", port=port, flags=["--timeout", "1"])
    assert (answer.code, answer.error["code"], answer.error["retryable"]) == (6, "not_ready", True)
    wait_until(lambda: is_listening(port))
    server = answer.json["data"]["server"]
    assert (server["state"], server["url"], server["ready_at"]) == ("starting", None, None)
    assert "devsup wait" in answer.error["hint"]

    again = servers.devsup("wait", "web", "--timeout", "0.3", "--json")
    assert (again.code, again.json["data"]["server"]["pid"]) == (6, server["pid"])

    (servers.project / "wake").touch()
    ready = servers.devsup("wait", "web", "--json").data
    assert (ready["server"]["state"], ready["server"]["pid"]) == ("ready", server["pid"])
    assert pid_at(ready["server"]["url"]) == server["pid"]
    servers.stop("web")
    servers.nothing_stays(port)


def test_a_silent_server_can_be_stopped(servers: Servers) -> None:
    next_app(servers.project, *server_argv("silent"))
    port = free_port()
    assert servers.try_start("web", port=port, flags=["--timeout", "0.5"]).code == 6
    assert servers.stop("web")["outcome"] == "stopped"
    servers.nothing_stays(port)


def test_the_metro_of_another_folder_is_not_ours(servers: Servers) -> None:
    expo_app(servers.project, *server_argv("metro_like", "--gap", "0", "--stranger", "/somewhere/else"))
    port = free_port()
    answer = servers.try_start("mobile", port=port, flags=["--timeout", "1"])
    assert (answer.code, answer.json["data"]["server"]["state"]) == (6, "starting")
    wait_until(lambda: is_listening(port))
    assert fetch(f"http://127.0.0.1:{port}/status")[1] == "packager-status:running"
    assert servers.devsup("wait", "mobile", "--timeout", "0.5").code == 6
    servers.stop("mobile")
    servers.nothing_stays(port)


def test_metro_of_a_folder_with_a_strange_name_is_ours(servers: Servers, devsup: Devsup) -> None:
    """Its header is URI-encoded."""
    folder = servers.project / "möbile app%20"
    folder.mkdir()
    expo_app(folder, *server_argv("metro_like", "--gap", "0", "--localhost"))
    port = free_port()
    server = devsup("start", "mobile", "--json", "--port", port, cwd=folder).data["server"]
    assert (server["state"], server["url"]) == ("ready", f"http://127.0.0.1:{port}")
    servers.stop(server["pid"])
    servers.nothing_stays(port)

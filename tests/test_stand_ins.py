"""Do the stand-in servers behave as what they stand for? Wrong ones would prove nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import (
    SERVERS,
    StandIn,
    fetch,
    free_port,
    is_listening,
    processes_of,
    server_argv,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


def url(port: int, path: str = "/") -> str:
    return f"http://127.0.0.1:{port}{path}"


def serving(port: int) -> int:
    """Wait until ``port`` answers and return the pid that the answer names."""

    def pid() -> int:
        try:
            status, body = fetch(url(port))
        except OSError:
            return 0
        assert status == 200
        return int(body.split()[1])

    return wait_until(pid)


def gone(pid: int) -> bool:
    """Tell whether ``pid`` is dead; a zombie is."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def log_of(project: Path, name: str) -> str:
    return (project.parent / f"{name}.log").read_text()


def test_a_server_is_up_fast_and_reads_its_port_in_three_ways(stand_in: StandIn) -> None:
    """Hundreds of them are started in the stress tests; a slow one would measure itself."""
    first, second, third = free_port(), free_port(), free_port()
    begin = time.monotonic()
    stand_in("web", "--port", first)
    serving(first)
    assert time.monotonic() - begin < 5
    stand_in("web", "-p", second)
    stand_in("web", env={"PORT": str(third)})
    assert serving(second) != serving(third)


def test_a_server_tells_its_surroundings(stand_in: StandIn, project: Path) -> None:
    port = free_port()
    child = stand_in("web", "--port", port, env={"COLOUR": "blue"})
    serving(port)
    told = json.loads(fetch(url(port, "/self"))[1])
    assert (told["pid"], told["pgid"], told["cwd"]) == (child.pid, child.pid, str(project))
    assert told["environ"]["COLOUR"] == "blue"
    assert "0" in told["descriptors"]


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_a_server_listens_on_one_address_only(stand_in: StandIn, host: str, other: str) -> None:
    port = free_port()
    stand_in("web", "--port", port, "--host", host)
    wait_until(lambda: is_listening(port, host))
    assert not is_listening(port, other)


def test_a_taken_port_is_an_error(stand_in: StandIn) -> None:
    port = free_port()
    stand_in("web", "--port", port)
    serving(port)
    assert stand_in("web", "--port", port).wait(10) == 1


def test_term_to_npm_leaves_the_server_serving(stand_in: StandIn) -> None:
    """Shape 1: the wrapper goes, a grandchild serves on."""
    port = free_port()
    wrapper = stand_in("npm_like", "--port", port)
    server = serving(port)
    wrapper.send_signal(signal.SIGTERM)
    assert wrapper.wait(10) == -signal.SIGTERM
    assert serving(port) == server != wrapper.pid
    os.killpg(wrapper.pid, signal.SIGTERM)
    wait_until(lambda: gone(server))


def test_int_to_npm_does_nothing(stand_in: StandIn) -> None:
    """Shape 2; to the whole group it ends everybody."""
    port = free_port()
    wrapper = stand_in("npm_like", "--port", port)
    server = serving(port)
    wrapper.send_signal(signal.SIGINT)
    assert serving(port) == server
    assert wrapper.poll() is None
    os.killpg(wrapper.pid, signal.SIGINT)
    assert wrapper.wait(10) == -signal.SIGINT
    wait_until(lambda: gone(server))


def test_pnpm_gives_the_script_a_group_of_its_own(stand_in: StandIn) -> None:
    """Shape 3: an empty group of the leader proves nothing."""
    port = free_port()
    wrapper = stand_in("pnpm_like", "--port", port)
    server = serving(port)
    assert os.getpgid(server) == server
    assert os.getsid(server) == wrapper.pid
    wrapper.send_signal(signal.SIGTERM)
    assert wrapper.wait(10) == 0
    wait_until(lambda: gone(server))


def test_the_watchdog_of_pnpm_ends_what_a_kill_leaves(stand_in: StandIn) -> None:
    port = free_port()
    wrapper = stand_in("pnpm_like", "--port", port)
    server = serving(port)
    wrapper.kill()
    wait_until(lambda: gone(server))


def test_a_careless_wrapper_leaves_another_group_behind(stand_in: StandIn) -> None:
    port = free_port()
    wrapper = stand_in("pnpm_like", "--careless", "--port", port)
    server = serving(port)
    os.killpg(wrapper.pid, signal.SIGTERM)
    wrapper.wait(10)
    assert serving(port) == server


def test_ready_with_its_port_open_then_exit_1(stand_in: StandIn, project: Path) -> None:
    """Shape 4."""
    port = free_port()
    child = stand_in("ready_then_exit", "--port", port, "--after", "3")
    wait_until(lambda: "✓ Ready" in log_of(project, "ready_then_exit"))
    assert is_listening(port)
    assert child.poll() is None
    assert child.wait(10) == 1


def test_a_port_opens_closes_and_opens_again(stand_in: StandIn) -> None:
    """Shape 5."""
    port = free_port()
    stand_in("port_blink", "--port", port, "--blink", "1.5", "--gap", "1.5")
    wait_until(lambda: is_listening(port), pause=0.02)
    wait_until(lambda: not is_listening(port), pause=0.02)
    serving(port)


@pytest.mark.parametrize("style", [[], ["--expo"]])
def test_a_taken_port_exits_with_0(stand_in: StandIn, project: Path, style: list[str]) -> None:
    """Shape 6."""
    port = free_port()
    stand_in("web", "--port", port)
    serving(port)
    assert stand_in("exit_zero", "--port", port, *style).wait(10) == 0
    assert ("Skipping dev server" if style else "EADDRINUSE") in log_of(project, "exit_zero")


def test_a_failure_exits_with_0_though_the_port_was_open(stand_in: StandIn) -> None:
    assert stand_in("exit_zero", "--always", "--port", free_port()).wait(10) == 0


def test_a_server_moves_to_the_next_port(stand_in: StandIn, project: Path) -> None:
    """Shape 7."""
    port = free_port()
    stand_in("web", "--port", port)
    serving(port)
    stand_in("port_mover", "--port", port)
    wait_until(lambda: "✓ Ready" in log_of(project, "port_mover"))
    moved = log_of(project, "port_mover")
    assert f"Port {port} is in use" in moved
    assert serving(int(moved.split("localhost:")[1].split()[0])) != serving(port)


def test_the_listener_is_replaced_by_a_new_pid(stand_in: StandIn, project: Path) -> None:
    """Shape 8."""
    port = free_port()
    top = stand_in("replacer", "--port", port)
    before = serving(port)
    (project / "replace").touch()
    wait_until(lambda: not (project / "replace").exists())
    assert serving(port) not in {before, top.pid}
    assert top.poll() is None


def test_a_broken_page_is_500_while_the_server_is_up(stand_in: StandIn) -> None:
    """Shape 9."""
    port = free_port()
    stand_in("broken_page", "--port", port)
    wait_until(lambda: is_listening(port))
    assert fetch(url(port))[0] == 500


def test_a_silent_server_accepts_and_never_answers(stand_in: StandIn) -> None:
    """Shape 10."""
    port = free_port()
    stand_in("silent", "--port", port)
    wait_until(lambda: is_listening(port))
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_helper_detached_at_term_outlives_the_server(stand_in: StandIn) -> None:
    """Shape 11."""
    port = free_port()
    token = uuid.uuid4().hex  # others have one of these, too
    child = stand_in("detached_flush", "--port", port, "--helper", "30", env={"DEVSUP_TEST_FLUSH": token})
    serving(port)
    child.terminate()
    assert child.wait(10) == 0
    (helper,) = processes_of(token)
    assert os.getsid(helper.pid) == helper.pid != child.pid


@pytest.mark.parametrize("args", [[], ["--child"]])
def test_a_stubborn_server_ignores_term(stand_in: StandIn, args: list[str]) -> None:
    """Shape 12."""
    port = free_port()
    child = stand_in("stubborn", "--port", port, *args)
    server = serving(port)
    os.killpg(child.pid, signal.SIGTERM)
    if args:
        assert child.wait(10) == 0
    assert serving(port) == server


def test_a_grandchild_in_its_own_session_holds_the_port(stand_in: StandIn) -> None:
    port = free_port()
    leader = stand_in("daemon_holder", "--port", port)
    server = serving(port)
    assert os.getsid(server) not in {leader.pid, os.getsid(0)}
    leader.terminate()
    leader.wait(10)
    assert serving(port) == server


def test_a_leader_leaves_a_grandchild_of_another_session(stand_in: StandIn) -> None:
    port = free_port()
    leader = stand_in("daemon_holder", "--leave", "--port", port)
    assert leader.wait(10) == 0
    assert serving(port) != leader.pid


def test_a_leader_exits_first_while_its_child_serves(stand_in: StandIn) -> None:
    port = free_port()
    leader = stand_in("leader_first", "--port", port, "--code", "3")
    assert leader.wait(10) == 3
    assert os.getsid(serving(port)) == leader.pid


def test_companions_are_called_as_asked(stand_in: StandIn, project: Path) -> None:
    """An editor, watchman: told by comm and argv[0], in a session of their own."""
    port = free_port()
    child = stand_in("companions", "--port", port, "--name", "watchman", "--name", "code")
    serving(port)
    lines = [
        line.split() for line in log_of(project, "companions").splitlines() if line.startswith("companion")
    ]
    assert [name for _, name, _ in lines] == ["watchman", "code"]
    for _, name, pid in lines:
        process = psutil.Process(int(pid))
        # It has left its parent's program when it is announced, and may not have taken the name of its own.
        wait_until(lambda process=process, name=name: process.name() == name)  # type: ignore[misc]
        wait_until(process.cmdline)
        assert os.getsid(process.pid) == process.pid != child.pid
        assert os.path.basename(process.cmdline()[0]) == name


def test_a_companion_can_hold_the_port(stand_in: StandIn, project: Path) -> None:
    port = free_port()
    child = stand_in("companions", "--port", port, "--hold")
    wait_until(lambda: is_listening(port))
    wait_until(lambda: "Ready" in log_of(project, "companions"))
    child.terminate()
    child.wait(10)
    assert fetch(url(port))[0] == 200


def test_a_crasher_dies_as_asked(stand_in: StandIn, project: Path) -> None:
    assert stand_in("crasher", "--code", "7", "--line", "no such thing").wait(10) == 7
    assert log_of(project, "crasher").endswith("no such thing\n")
    assert stand_in("crasher", "--signal", int(signal.SIGSEGV)).wait(10) == -signal.SIGSEGV


def test_a_chatty_server_talks(stand_in: StandIn, project: Path) -> None:
    port = free_port()
    stand_in("chatty", "--port", port, "--lines", "50", "--long", "1000")
    serving(port)
    text = log_of(project, "chatty")
    assert "line 49\n" in text
    assert "x" * 1000 in text
    assert "\x1b[1m" in text


def test_tls_is_answered_over_tls_only(stand_in: StandIn) -> None:
    port = free_port()
    stand_in("tls_web", "--port", port)
    wait_until(lambda: is_listening(port))
    context = ssl.create_default_context(cafile=str(SERVERS / "localhost.pem"))
    with urllib.request.urlopen(f"https://localhost:{port}/", context=context, timeout=10) as response:
        assert response.status == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        fetch(url(port))


# -- Next.js ---------------------------------------------------------------------------------------


def lock_of(folder: Path) -> dict[str, object]:
    lock = json.loads((folder / ".next" / "dev" / "lock").read_text())
    assert isinstance(lock, dict)
    return lock


def test_next_answers_its_status_and_names_itself_in_its_lock(stand_in: StandIn, project: Path) -> None:
    port = free_port()
    top = stand_in("next_like", "-p", port)
    server = serving(port)
    status, body = fetch(url(port, "/__nextjs_server_status"))
    assert (status, list(json.loads(body))) == (200, ["executionId"])
    lock = lock_of(project)
    assert (lock["pid"], lock["port"], lock["appUrl"]) == (server, port, f"http://localhost:{port}")
    assert psutil.Process(server).name().startswith("next-server")
    top.terminate()
    assert top.wait(10) == 0
    assert gone(server)
    assert not (project / ".next" / "dev" / "lock").exists()


def test_a_second_next_in_the_folder_says_ready_and_exits_1(stand_in: StandIn, project: Path) -> None:
    port, other = free_port(), free_port()
    stand_in("next_like", "-p", port)
    server = serving(port)
    loser = stand_in("next_like", "-p", other)
    wait_until(lambda: is_listening(other))
    assert loser.wait(10) == 1
    assert "Another next dev server is already running" in log_of(project, "next_like")
    assert serving(port) == server


@pytest.mark.parametrize(("major", "code"), [("16", 1), ("15", 0)])
def test_next_fails_on_a_given_port_and_moves_from_its_own(
    stand_in: StandIn, project: Path, major: str, code: int
) -> None:
    port = free_port()
    stand_in("web", "--port", port)
    serving(port)
    failed = stand_in("next_like", "--major", major, env={"PORT": str(port)})
    assert failed.wait(10) == code
    assert "EADDRINUSE" in log_of(project, "next_like")


def test_an_edited_config_replaces_next_server(stand_in: StandIn, project: Path) -> None:
    port = free_port()
    config = project / "next.config.mjs"
    config.write_text("export default {}\n")
    top = stand_in("next_like", "-p", port)
    before = serving(port)
    config.write_text("export default { poweredByHeader: false }\n")
    wait_until(lambda: gone(before))
    assert serving(port) != before
    config.write_text("throw new Error('broken')\n")
    assert top.wait(10) == 1


# -- Metro -----------------------------------------------------------------------------------------


def test_metro_says_whose_it_is(stand_in: StandIn, temporary: Path) -> None:
    folder = temporary / "a folder"
    folder.mkdir()
    port = free_port()
    stand_in("metro_like", "--port", port, "--localhost", cwd=folder)
    wait_until(lambda: "Waiting on" in (temporary / "metro_like.log").read_text())
    with urllib.request.urlopen(url(port, "/status"), timeout=10) as response:
        assert response.read() == b"packager-status:running"
        assert response.headers["X-React-Native-Project-Root"] == str(folder).replace(" ", "%20")


def test_metro_skips_on_a_taken_port(stand_in: StandIn) -> None:
    port = free_port()
    stand_in("web", "--port", port)
    serving(port)
    assert stand_in("metro_like", "--port", port).wait(10) == 1


@pytest.mark.parametrize(("ci", "code"), [("", 1), ("1", None)])
def test_metro_minds_ci(stand_in: StandIn, project: Path, ci: str, code: int | None) -> None:
    port = free_port()
    child = stand_in("metro_like", "--port", port, env={"CI": ci})
    if code is not None:
        assert child.wait(10) == code
        return
    wait_until(lambda: is_listening(port))
    assert "CI mode" in log_of(project, "metro_like")


def test_every_stand_in_says_what_it_imitates() -> None:
    for script in SERVERS.glob("*.py"):
        assert script.read_text().startswith('"""'), script
        assert server_argv(script.stem)[1] == str(script)

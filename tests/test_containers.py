"""Servers of containers: a registry that is shared with pid namespaces which come and go."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from devsup import identity, system
from devsup.clock import now_ms
from devsup.models import State
from devsup.paths import Home
from devsup.registry import Registry
from tests.registry_child import make_row
from tests.support import Answer, devsup_argv, free_port, hear, server_argv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Devsup, Spawn

#: Runs ARGV in a pid namespace of its own, prints its answer, and ends all with the input.
SANDBOX = """
import json, subprocess, sys
done = subprocess.run(json.loads(sys.argv[1]), capture_output=True, text=True, stdin=subprocess.DEVNULL)
print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sandbox(spawn: Spawn, project: Path, home: Path) -> Callable[..., Inside]:
    """Run a devsup command inside a new pid namespace that shares home, project and network."""
    del home
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no pid namespace for us")
    code = (
        "import os, sys; os.execvp('unshare', ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child',"
        " sys.executable, '-c', *sys.argv[1:]])"
    )

    def run(*args: object) -> Inside:
        child = spawn(code, SANDBOX, json.dumps(devsup_argv(*args)), cwd=project)
        answer = Answer(tuple(map(str, args)), *json.loads(hear(child)))
        return Inside(answer, child)

    return run


class Inside(NamedTuple):
    """A command's answer in a namespace, and the process that keeps this alive."""

    answer: Answer
    process: subprocess.Popen[str]

    def end(self) -> None:
        """End the namespace and all in it."""
        self.process.communicate(timeout=10)


def start(name: str, port: int) -> list[object]:
    return ["start", name, "--json", "--port", port, "--", *server_argv("web", "--port", port)]


def test_a_server_of_another_container_is_shown_and_left_alone(
    devsup: Devsup, sandbox: Callable[..., Inside]
) -> None:
    """What `list` shows by name, the other commands know by that name; its port is taken while it listens."""
    port = free_port()
    inside = sandbox(*start("boxed", port))
    assert inside.answer.data["server"]["state"] == "ready"
    [shown] = devsup("list", "--json").data["servers"]
    assert (shown["session"], shown["scope"], shown["state"]) == ("dev_server_boxed", "foreign", "ready")
    assert devsup("status", "boxed", "--json").data["server"] == shown
    assert devsup("logs", "boxed", "--json").data["text"]
    refused = devsup("stop", "boxed", "--json")
    [result] = refused.json["data"]["results"]
    assert (refused.code, result["outcome"]) == (12, "refused")
    assert refused.error["code"] == "not_ours"
    assert "another container of this machine (pid namespace" in refused.error["message"]
    assert devsup("restart", "boxed", "--json").code == 12
    taken = devsup(*start("other", port))
    assert (taken.code, taken.error["code"]) == (4, "port_taken")
    inside.end()


@pytest.mark.skipif(system.pid_namespaces() is None, reason="not all pid namespaces are seen from here")
def test_the_server_of_a_container_that_has_ended_is_lost(
    devsup: Devsup, sandbox: Callable[..., Inside], home: Path
) -> None:
    """It is shown as that, a stop or the next start moves it to the history, and its port is free."""
    port = free_port()
    for finish in ("stop", "start"):
        inside = sandbox(*start("boxed", port))
        server = inside.answer.data["server"]
        inside.end()
        [shown] = devsup("list", "--json").data["servers"]
        assert (shown["id"], shown["state"]) == (server["id"], "lost")
        assert devsup("status", "boxed", "--json").data["server"]["state"] == "lost"
        assert "does not run (lost)" in devsup("wait", "boxed", "--json").error["message"]
        if finish == "stop":
            [result] = devsup("stop", "boxed", "--json").data["results"]
            assert result["outcome"] == "already_stopped"
        else:
            assert devsup(*start("other", port)).data["server"]["port"] == port
            [other] = devsup("list", "--json").data["servers"]
            assert other["app"] == "other"
            assert devsup("stop", "other", "--json").code == 0
        [past] = Registry(Home(str(home))).ended(id=server["id"])
        assert (past.state, past.reason) == (State.LOST, "its container has ended")
        assert devsup("list", "--json").data["servers"] == []
        assert devsup("logs", "boxed", "--json").data["text"]
    assert list((home / "servers").iterdir()) == []


@pytest.mark.skipif(system.pid_namespaces() is None, reason="not all pid namespaces are seen from here")
def test_a_container_with_the_number_of_an_ended_one_revives_nothing(
    devsup: Devsup, sandbox: Callable[..., Inside]
) -> None:
    """Kernels give the lowest number that is free: the next container mostly has it."""
    inside = sandbox(*start("boxed", free_port()))
    inside.end()
    other = sandbox(*start("other", free_port()))
    states = {one["app"]: one["state"] for one in devsup("list", "--json").data["servers"]}
    assert states == {"boxed": "lost", "other": "ready"}
    other.end()


def test_who_sees_all_start_times_shifted_takes_no_container_for_ended(
    sandbox: Callable[..., Inside], project: Path
) -> None:
    """In a time namespace of his own he sees all processes, and each as if it had started at another time."""
    shifted = ["unshare", "--time", "--boottime", "1000", "--fork"]
    if subprocess.run([*shifted, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no time namespace for us")
    inside = sandbox(*start("boxed", free_port()))
    listed = subprocess.check_output([*shifted, *devsup_argv("list", "--json")], cwd=project)
    assert [one["state"] for one in json.loads(listed)["data"]["servers"]] == ["ready"]
    inside.end()


def test_the_next_start_of_anything_ends_what_is_lost(
    devsup: Devsup, sandbox: Callable[..., Inside], home: Path
) -> None:
    """Also where its port is in nobody's way."""
    if system.pid_namespaces() is None:
        pytest.skip("not all pid namespaces are seen from here")
    inside = sandbox(*start("boxed", free_port()))
    inside.end()
    devsup(*start("other", free_port()))
    assert [row.app for row in Registry(Home(str(home))).rows()] == ["other"]
    devsup("stop", "other", "--json")


@pytest.mark.parametrize(
    ("state", "age_ms", "listens", "code"),
    [
        (State.READY, 3_600_000, False, 0),
        (State.READY, 3_600_000, True, 4),
        (State.STARTING, 1_000, False, 4),
        (State.STARTING, 3_600_000, False, 0),
    ],
)
def test_a_foreign_lease_counts_while_somebody_listens(
    devsup: Devsup, home: Path, state: State, age_ms: int, *, listens: bool, code: int
) -> None:
    """Of another machine nothing can be proven; its row stays, its port is given to who asks for it."""
    port = free_port()
    registry = Registry(Home(str(home)))
    row = make_row("f1", "dev_server_far", app="far", starter=identity.me()).replace(
        scope="another-machine/boot/1",
        netns=system.net_namespace(),
        state=state,
        started_at=now_ms() - age_ms,
        asked_port=port,
    )
    registry.reserve(row, dead=[], limit=9, port=port, log_of=str)
    with socket.socket() as holder:
        if listens:
            holder.bind(("127.0.0.1", port))
            holder.listen()
        answer = devsup(*start("near", port))
    assert answer.code == code, answer
    if code == 0:
        near = answer.data["server"]["id"]
        assert registry.leases(system.net_namespace()) == {port: near}
        assert devsup("stop", "near", "--json").code == 0
    far = registry.row("f1")
    assert far is not None
    assert far.state is state
    answer = devsup("stop", "f1", "--everywhere", "--json")
    assert (answer.code, answer.error["code"]) == (12, "not_ours")
    assert "another-machine" in answer.error["message"]


def test_devsup_as_first_process_of_its_namespace_says_so(
    devsup: Devsup, sandbox: Callable[..., Inside], project: Path
) -> None:
    """All that it started ends with the command itself."""
    del devsup, sandbox
    port = free_port()
    argv = ["unshare", "--pid", "--fork", "--mount-proc", *devsup_argv(*start("web", port))]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=project, check=False, timeout=120)
    assert done.returncode == 0, done
    assert "first process of its sandbox" in done.stdout


def test_a_program_that_is_the_first_process_and_calls_devsup_is_named(
    sandbox: Callable[..., Inside],
) -> None:
    """An agent's own interpreter is no init either."""
    inside = sandbox(*start("web", free_port()))
    [note] = [note for note in inside.answer.notes if "servers too" in note]
    assert "python" in note
    inside.end()

"""
Hosts of a fleet on one machine: each with its own state folder, its own name and, where the system lets us,
its own pid namespace. They share the network and Redis, which each may reach through a proxy of its own.

A host runs commands, any number at once, is frozen, and is switched off: then all of it is gone in one
moment, as after a power cut. Used from the main thread of one test.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from tests.support import Answer, clean_environment, devsup_argv, end_all, processes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Host", "has_pid_namespaces"]

#: Seconds that anything may take on two busy cores.
_PATIENCE = 160.0

#: The first process of a host: it runs commands from its input and reaps what is left to it.
_HOST = """
import json, os, signal, subprocess, sys, threading
if os.getpid() == 1:
    worker = os.fork()
    while worker:
        pid, _ = os.wait()
        if pid == worker:
            os._exit(0)
lock = threading.Lock()
def run(number, argv, cwd, env):
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    with lock:
        print(json.dumps([number, done.returncode, done.stdout, done.stderr]), flush=True)
print(json.dumps(None), flush=True)
for line in sys.stdin:
    threading.Thread(target=run, args=json.loads(line), daemon=True).start()
"""


@cache
def has_pid_namespaces() -> bool:
    """Tell whether this user may give a host a pid namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


class Host:
    """One host: ``run`` waits for a command's answer, ``begin`` and ``answer`` do that in two steps."""

    def __init__(self, name: str, folder: Path, project: Path, *, fleet: str, **more: str) -> None:
        self.name = name
        self.home = folder / name
        self.project = project
        self._token = f"DEVSUP_TEST_HOST={folder}/{name}"
        variable, _, value = self._token.partition("=")
        self.environ = clean_environment(os.environ, self.home) | {
            "DEVSUP_FLEET": fleet, "DEVSUP_HOST": name, variable: value, **more,
        }  # fmt: skip
        argv = [sys.executable, "-c", _HOST]
        if has_pid_namespaces():
            argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *argv]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environ,
            start_new_session=True,
        )
        self._answers: dict[int, list[Any]] = {}
        self._begun = 0
        self._heard = b""
        self._is_on = True
        self._hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()

    def run(self, *args: object, **more: Any) -> Answer:
        """Run `devsup ARGS` there and return its answer."""
        return self.answer(self.begin(*args, **more))

    def begin(self, *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
        """Begin to run `devsup ARGS` there; return a number for `answer`."""
        self._begun += 1
        environ = self.environ | dict(env or {})
        call = [self._begun, devsup_argv(*args), str(cwd or self.project), environ]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call).encode() + b"\n")
        self._process.stdin.flush()
        return self._begun

    def answer(self, number: int) -> Answer:
        """Wait for the answer of what was begun; an earlier or later one may come first."""
        while number not in self._answers:
            heard = self._hear()
            self._answers[heard[0]] = heard[1:]
        return Answer((self.name, str(number)), *self._answers.pop(number))

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
            assert ready, f"{self.name} says nothing"
            more = os.read(self._process.stdout.fileno(), 65_536)
            assert more, f"{self.name} has ended"
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def processes(self, chosen: Callable[[list[str]], bool] = bool) -> list[int]:
        """Return the pids, as this process sees them, of what runs there and whose command is ``chosen``."""
        found = processes_of(self._token)
        return [one.pid for one in found if chosen(one.command.split())]

    def freeze(self) -> None:
        """Stop every process of it in its tracks, as when a laptop is closed; `thaw` lets them go on."""
        frozen: set[int] = set()
        while new := set(self.processes()) - frozen:
            for pid in new:
                os.kill(pid, signal.SIGSTOP)
            frozen |= new
        self._frozen = frozen

    def thaw(self) -> None:
        """Let all go on that `freeze` has stopped."""
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)

    def switch_off(self) -> None:
        """End everything of it at once, without a word to anybody; once is enough."""
        if not self._is_on:
            return
        self._is_on = False
        self._process.kill()
        end_all(lambda: processes_of(self._token))
        self._process.wait(_PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # a command was on its way

"""
What the benchmarks share: an installed copy of devsup, paired timing, and the shape of a figure.

Every figure stands beside a reference that was measured in the same run, turn by turn, so that a machine
whose speed drifts moves both. Medians, not means: a neighbour on the machine makes outliers, never gains.
"""

from __future__ import annotations

import os
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypedDict

ROOT = Path(__file__).resolve().parent.parent


class Figure(TypedDict):
    """One row of the table; ``reference`` and ``ratio`` are None where the budget is absolute."""

    name: str
    value: float
    unit: str
    reference: float | None
    ratio: float | None
    budget: str
    ok: bool


class Run(NamedTuple):
    """What one run of a command cost, in seconds."""

    wall: float
    cpu: float
    out: str


def figure(name: str, value: float, unit: str, *, budget: float, reference: float | None = None) -> Figure:
    """Return a row: with a ``reference`` the budget bounds the ratio, else the value."""
    ratio = None if reference is None else value / reference
    bound = f"<= {budget:g}x" if reference is not None else f"<= {budget:g} {unit}"
    return Figure(
        name=name,
        value=value,
        unit=unit,
        reference=reference,
        ratio=ratio,
        budget=bound,
        ok=(ratio if ratio is not None else value) <= budget,
    )


class Installed:
    """An installed copy of devsup with a state folder and a project of its own."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder = folder
        self.bin = environment / "bin"
        self.python = str(self.bin / "python")
        self.script = str(self.bin / "devsup")
        self.home = folder / "home"
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "devsup.toml").write_text("")
        unset = ("CI", "CLAUDECODE", "DEVSUP_OUTPUT", "DEVSUP_DEBUG", "DEVSUP_MARKER", "PYTHONPATH")
        self.environ = {name: value for name, value in os.environ.items() if name not in unset}
        self.environ |= {"DEVSUP_HOME": str(self.home), "DEVSUP_MAX_SERVERS": "2000", "NO_COLOR": "1"}

    def run(self, argv: Sequence[str], *, cwd: Path | None = None) -> Run:
        """Run a command to its end; CPU time is its own, without what outlives it."""
        before = time.perf_counter()
        with subprocess.Popen(
            argv, cwd=cwd or self.project, env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            assert child.stderr is not None
            out, err = child.stdout.read(), child.stderr.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - before
        if child.returncode:
            raise RuntimeError(f"{argv} gave {child.returncode}: {out.decode()} {err.decode()}")
        return Run(wall, usage.ru_utime + usage.ru_stime, out.decode())

    def devsup(self, *words: str, cwd: Path | None = None) -> Run:
        """Run the installed script."""
        return self.run([self.script, *words], cwd=cwd)

    def bare(self) -> Run:
        """Run the interpreter of the same environment on nothing."""
        return self.run([self.python, "-I", "-c", "pass"])

    def at_terminal(self, argv: Sequence[str]) -> Run:
        """Run a command with a terminal on all three descriptors."""
        before = time.perf_counter()
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(self.project)
            os.execve(argv[0], list(argv), {**self.environ, "TERM": "xterm", "COLUMNS": "80"})
        out = b""
        while True:
            try:
                chunk = os.read(fd, 65536)
            except OSError:  # the terminal's other side is closed
                break
            if not chunk:
                break
            out += chunk
        _, _, usage = os.wait4(pid, 0)
        os.close(fd)
        return Run(
            time.perf_counter() - before, usage.ru_utime + usage.ru_stime, out.decode(errors="replace")
        )


@contextmanager
def installed() -> Iterator[Installed]:
    """Install this checkout, compiled and not editable, into a lasting environment; give it a new home."""
    environment = ROOT / ".bench-venv"
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, str(ROOT)], check=True)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", str(ROOT)], check=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-")).resolve()
    copy = Installed(folder, environment)
    try:
        yield copy
    finally:
        copy.devsup("stop", "--all", "--everywhere", "--json")
        shutil.rmtree(folder)


def paired(one: Callable[[], float], other: Callable[[], float], *, rounds: int) -> tuple[float, float]:
    """Measure two things in turn after a warm-up of both; return their medians."""
    one()
    other()
    pairs = [(one(), other()) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def median(measure: Callable[[], float], *, rounds: int) -> float:
    """Return the median of some rounds, after a warm-up."""
    measure()
    return statistics.median(measure() for _ in range(rounds))

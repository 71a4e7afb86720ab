"""What a command costs by itself, as ratios of a bare interpreter or a hello-world Typer app."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import ROOT, Figure, Installed, figure, median, paired

HELLO = """\
import typer
app = typer.Typer()
@app.command()
def main(name: str = "world") -> None:
    print(f"hello {name}")
app()
"""
WEB = str(ROOT / "tests" / "servers" / "web.py")
FIRST_PORT = 9100


#: Listens on a port of the kernel's choice, and costs nothing.
LISTENER = "import _socket, time; s = _socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); time.sleep(1e4)"


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure list with 1 and 100 servers, start and stop, and two commands at a terminal."""
    figures = []
    # An editor, say, which belongs to no server: each of those without a port may have opened its socket.
    with subprocess.Popen([copy.python, "-I", "-S", "-c", LISTENER]) as stranger:
        try:
            figures += listing(copy, rounds, "without a port", ["sleep", "1000"])
            figures += listing(copy, rounds, "listening", [copy.python, "-I", "-S", "-c", LISTENER])
        finally:
            stranger.kill()
    figures += start_and_stop(copy, rounds)
    figures += at_terminal(copy, rounds)
    return figures


def listing(copy: Installed, rounds: int, what: str, command: list[str]) -> list[Figure]:
    """Measure `list` with 1 and 100 servers of one sort, and `doctor` with the hundred."""
    figures = []
    for first, count in ((0, 1), (1, 100)):
        for number in range(first, count):
            copy.devsup("start", f"app{number}", "--no-wait", "--json", "--", *command)
        for number in range(first, count):
            copy.devsup("wait", f"app{number}", "--json")
        value, bare = paired(
            lambda: copy.devsup("list", "--json").wall, lambda: copy.bare().wall, rounds=rounds
        )
        name = f"list --json, {count} {what}"
        figures.append(figure(name, value * 1e3, "ms", budget=3, reference=bare * 1e3))
    healthy = median(lambda: copy.devsup("doctor", "--json").wall, rounds=min(rounds, 5))
    figures.append(figure(f"doctor --json, 100 {what}", healthy * 1e3, "ms", budget=1000))
    copy.devsup("stop", "--all", "--json")
    return figures


def start_and_stop(copy: Installed, rounds: int) -> list[Figure]:
    """Measure the CPU time of start and stop themselves, and the time of a start that finds its server."""
    web = ("web", "--port", str(FIRST_PORT), "--json")
    command = ("--", sys.executable, WEB)
    started: list[float] = []
    stopped: list[float] = []

    def cold() -> float:
        started.append(copy.devsup("start", *web, "--no-wait", *command).cpu)
        copy.devsup("wait", "web", "--json")
        stopped.append(copy.devsup("stop", "web", "--json").cpu)
        return 0.0

    _, bare = paired(cold, lambda: copy.bare().cpu, rounds=rounds)
    copy.devsup("start", *web, *command)
    found, bare_wall = paired(
        lambda: copy.devsup("start", *web, *command).wall, lambda: copy.bare().wall, rounds=rounds
    )
    copy.devsup("stop", "web", "--json")
    middle = len(started) // 2
    own = [
        figure(
            "start --no-wait, own CPU", sorted(started)[middle] * 1e3, "ms", budget=8, reference=bare * 1e3
        ),
        figure("stop, own CPU", sorted(stopped)[middle] * 1e3, "ms", budget=5, reference=bare * 1e3),
    ]
    return [
        *own,
        figure("start that finds its server", found * 1e3, "ms", budget=4, reference=bare_wall * 1e3),
    ]


def at_terminal(copy: Installed, rounds: int) -> list[Figure]:
    """Measure commands at a terminal beside a hello-world Typer app in the same environment."""
    hello = Path(copy.folder) / "hello.py"
    hello.write_text(HELLO)
    figures = []
    for words in (("list",), ("version",)):
        value, reference = paired(
            lambda words=words: copy.at_terminal([copy.script, *words]).wall,  # type: ignore[misc]
            lambda: copy.at_terminal([copy.python, str(hello)]).wall,
            rounds=rounds,
        )
        name = f"{' '.join(words)} at a terminal"
        figures.append(figure(name, value * 1e3, "ms", budget=1.3, reference=reference * 1e3))
    return figures

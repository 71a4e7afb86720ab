"""
A tour: start a server, start it again, list, ask it, read its log, stop it, list.

`python -m devsup.demo [FOLDER] [--port N]`: FOLDER is a Next.js app with its packages installed; without one,
or without Node, the tour is made on the small server of this package. It keeps its own state folder, so
servers that already run are not touched and not seen, and it leaves nothing behind however it ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

__all__ = ["main"]

#: What Next.js and the small server listen on when nobody says otherwise.
PORT = 3000
#: The first request compiles the page: seconds on a small machine.
ANSWER_TIMEOUT = 60.0


class TourFailed(Exception):
    """A step did not do what it should."""


class Tour:
    """The steps, each shown as the command one would type."""

    def __init__(self, folder: str, home: str, *, port: int | None, command: list[str] | None = None) -> None:
        self.folder = folder
        self.port = port
        self.command = ["--", *command] if command else []
        self.environ = {**os.environ, "DEVSUP_HOME": home}
        self.environ.pop("DEVSUP_OUTPUT", None)

    def run(self) -> None:
        """Go through all of it."""
        flags = ["--port", str(self.port)] if self.port else []
        if not flags and not is_free(PORT):
            say(f"Port {PORT} is taken on this machine, so devsup is asked for another one.")
            flags = ["--port", "auto"]
        start = ["start", "web", *flags, *self.command]
        say("Start the app. It returns when the server answers.")
        self.devsup(*start)
        say("Start it again: the same server comes back, no second one is made.")
        self.devsup(*start)
        say("What runs?")
        self.devsup("list")
        say("Does it answer?")
        url = self.devsup("url", "web").strip()
        self.ask(f"{url.rstrip('/')}/api/health")
        say("What did it print?")
        self.devsup("logs", "web", "-n", "5")
        say("Stop it. It returns when every process has ended and the port is free.")
        self.devsup("stop", "web")
        self.devsup("list")
        port = int(url.rstrip("/").rpartition(":")[2])
        if not is_free(port):
            raise TourFailed(f"port {port} is still taken")
        say(f"Nothing is left: no process, and port {port} is free.")

    def devsup(self, *args: str) -> str:
        """Show and run one command; return what it printed when that is one line to go on with."""
        show("devsup", *args)
        argv = [sys.executable, "-m", "devsup", *args]
        captured = args[0] == "url"
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE if captured else None,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TourFailed(f"`devsup {' '.join(args)}` exited with {done.returncode}")
        if captured:
            print(done.stdout, end="", flush=True)
            return done.stdout
        return ""

    def ask(self, url: str) -> None:
        """Show what the server answers."""
        show("curl", url)
        try:
            # Not by way of a proxy: the address is this machine's.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=ANSWER_TIMEOUT) as answer:
                print(answer.read(200).decode(), flush=True)
        except (OSError, urllib.error.URLError) as error:
            raise TourFailed(f"no answer from {url}: {error}") from error

    def clean_up(self) -> None:
        """Stop what an interrupted tour has started."""
        argv = [sys.executable, "-m", "devsup", "stop", "--all", "--everywhere", "--json"]
        subprocess.run(argv, cwd=self.folder, env=self.environ, capture_output=True, timeout=60, check=False)


def say(text: str) -> None:
    """Print what comes next."""
    print(f"\n# {text}", flush=True)


def show(*words: str) -> None:
    """Print a command line."""
    line = "$ " + " ".join(words)
    bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[1m{line}\x1b[0m" if bold else line, flush=True)


def is_free(port: int) -> bool:
    """Tell whether nothing listens on ``port`` on this machine."""
    for host in ("127.0.0.1", "::1"):
        try:
            with socket.create_connection((host, port), timeout=1):
                return False
        except OSError:
            continue
    return True


def missing(folder: str) -> str | None:
    """Return why the app in ``folder`` cannot be run here, or None."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not os.path.isdir(os.path.join(folder, "node_modules", "next")):
        return f"the packages of {folder} are not installed"
    return None


def main(argv: list[str] | None = None) -> int:
    """Make the tour and return its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    port = None
    if "--port" in args:
        at = args.index("--port")
        port = int(args[at + 1])
        del args[at : at + 2]
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="devsup-demo-"))
    home, small = os.path.join(scratch, "home"), os.path.join(scratch, "app")
    os.mkdir(small)
    # A project of its own: the search for its root ends here.
    with open(os.path.join(small, "devsup.toml"), "w", encoding="utf-8"):
        pass
    reason = missing(args[0]) if args else "no app was named"
    if reason is None:
        tour = Tour(args[0], home, port=port)
    else:
        say(f"This tour uses the small server that comes with devsup: {reason}.")
        tour = Tour(small, home, port=port, command=[sys.executable, "-m", "devsup.demo.server"])
    begin = time.monotonic()
    try:
        tour.run()
    except TourFailed as failure:
        print(f"\nThe tour ended early: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe tour was interrupted; what it started is stopped.", file=sys.stderr)
        return 130
    finally:
        tour.clean_up()
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"That was the tour, in {time.monotonic() - begin:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

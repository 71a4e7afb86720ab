"""
What a guard was asked to run, as a file in the state folder: written before the guard starts, never changed
after.

It never holds the environment. The registry is rebuilt from these files when it is lost.
"""

from __future__ import annotations

import os

from devsup import compactjson
from devsup.filenames import native_all, portable_all
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Job", "find", "read", "remove", "write"]


class Job(Record):
    """
    Everything but the environment.

    ``port`` is the port asked for. ``started_at`` is the first start of this server, whatever generation runs
    now. ``probe`` says how the server is found ready, ``policy`` how long it lives and what becomes of it
    when it ends by itself, both with a key only for what is not as usual:

    * probe: ``http`` paths of which one must answer, with ``status`` (any), ``body`` and ``root_header``;
      ``log``, an expression that its output must match first; ``any_owner``: whoever listens on the port;
      ``tcp``: it speaks no HTTP
    * policy: ``restart`` "on-failure" or "always"; ``idle_timeout``, ``ttl`` (seconds); ``parent`` (the
      fields of an `Identity`); ``stop_signal`` (a name), ``grace`` (seconds), ``keep`` (programs that are
      left running); ``health``: ``interval`` (seconds) and ``restart``; ``log_limit`` (bytes, 0: none)

    ``fleet`` is what it is to its fleet, as `devsup.fleet.membership` writes it; None where it is in none.
    """

    id: str
    generation: int
    home: str
    scope: str
    netns: str
    project: str
    session: str
    app: str | None
    kind: str
    cwd: str
    command: list[str]
    executable: str
    port: int | None
    default_port: int | None
    folder: str | None
    probe: dict[str, Any]
    log: str
    owner: str | None
    started_at: int
    policy: dict[str, Any]
    fleet: dict[str, Any] | None = None


def write(path: str, job: Job) -> None:
    """Write ``job`` so that a reader sees all of it or nothing."""
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, compactjson.dumps(portable_all(job.asdict())).encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read(path: str) -> Job:
    """
    Return the job at ``path``.

    :raises OSError: there is none
    :raises ValueError: it is damaged, or of another version
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, encoding="utf-8") as file:
        fields = native_all(compactjson.loads(file.read()))
    try:
        # What older versions did not write has a default.
        return Job(**{name: fields[name] for name in Job._fields if name in fields})
    except TypeError as error:
        raise ValueError(f"`{path}` is no job: {error}") from error


def find(path: str) -> Job | None:
    """Return the job at ``path``; None where there is none: its server has ended, or is another version's."""
    try:
        return read(path)
    except (OSError, ValueError):
        return None


def remove(path: str) -> None:
    """
    Remove the job, where it is still there, and what a writer that was killed has left of it.

    Never an error: what cannot be removed is tried again by the next start.
    """
    folder, _, name = path.rpartition("/")
    try:
        for one in os.listdir(folder):
            if one.startswith(name):
                os.unlink(f"{folder}/{one}")
    except OSError:
        return

"""
Several hosts on one machine: each with a state folder, a project and a name of its own, all with one Redis.

They share nothing else, but for processes that each could see: a test of what only pids tell has to make
namespaces, which this does not.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from devsup import Supervisor
from devsup.fleet import keys
from devsup.models import FleetServer
from devsup.redis import leases
from tests.support import Answer, devsup_argv, free_port, run_devsup, server_argv, with_changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devsup.models import HealthPart
    from tests.redis_support import RedisServer

__all__ = ["Host", "Hosts", "fleet_file", "lease_of"]


def fleet_file(port: int, *, exclusive: bool = True, ttl: str = "30s", more: str = "") -> str:
    """Return a devsup.toml with the apps `web`, on ``port``, and `api`, of which `web` may be exclusive."""
    only = 'exclusive = "fleet"\n' if exclusive else ""
    return (
        f'project = "shop"\n[fleet]\nname = "team"\nttl = "{ttl}"\n{more}'
        f"[apps.web]\ncommand = {json.dumps(server_argv('web'))}\nport = {port}\n{only}"
        f'[apps.api]\ncommand = {json.dumps(server_argv("web"))}\nport = "auto"\n'
    )


class Host:
    """One host: ``host("list", "--fleet")`` runs devsup there."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self.name = name
        self.home = folder / f"{name}-home"
        self.project = folder / name
        self.port = free_port()
        self.environ: dict[str, str | None] = {
            "DEVSUP_HOME": str(self.home),
            "DEVSUP_HOST": name,
            "DEVSUP_FLEET": url,
        }
        self.home.mkdir(mode=0o700)
        self.project.mkdir()
        self.configure()

    def configure(self, **options: Any) -> None:
        """Write its configuration; see `fleet_file`."""
        (self.project / "devsup.toml").write_text(fleet_file(self.port, **options))

    def __call__(self, *args: object, env: Mapping[str, str | None] | None = None) -> Answer:
        """Run a command to its end."""
        return run_devsup(*args, cwd=self.project, env={**self.environ, **(env or {})})

    def begin(self, *args: object, env: Mapping[str, str | None] | None = None) -> subprocess.Popen[str]:
        """Begin a command; whoever does so reads it with `communicate`."""
        return subprocess.Popen(
            devsup_argv(*args),
            cwd=self.project,
            env=with_changes({**self.environ, **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def here(self) -> Iterator[Supervisor]:
        """Let this process be there for a while: looking again and again needs no process each time."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environ.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            yield Supervisor(str(self.project), str(self.home))

    def server(self) -> dict[str, Any]:
        """Return the record of its `web`, as it sees it itself."""
        with self.here() as there:
            return there.status("web").server.asdict()

    def lease(self) -> dict[str, Any]:
        """Return the lease of its `web`, as it sees it itself."""
        with self.here() as there:
            return there.status("web").lease or {}

    def fleet(self) -> dict[str, dict[str, Any]]:
        """Return the servers of the fleet as it sees them, by host and app."""
        with self.here() as there:
            servers = there.list(fleet=True).servers
        return {f"{one.host}/{one.app}": one.asdict() for one in servers if isinstance(one, FleetServer)}

    def redis(self) -> HealthPart:
        """Return what its doctor says of Redis."""
        with self.here() as there:
            (found,) = (one for one in there.doctor().parts if one.part == "redis")
        return found

    def job(self) -> dict[str, Any]:
        """Return the only job of its state folder."""
        (name,) = (name for name in os.listdir(self.home / "servers") if name.endswith(".json"))
        found: dict[str, Any] = json.loads((self.home / "servers" / name).read_text())
        return found


class Hosts(Protocol):
    """Make hosts by their names."""

    def __call__(self, *names: str, url: str | None = None) -> list[Host]:
        """Return them; ``url`` is another address than that of the shared Redis."""


def lease_of(redis: RedisServer, app: str = "web") -> dict[str, str]:
    """Return what Redis has of the lease of an app of `shop`; empty where there is none."""
    with redis.client() as client:
        return leases.holder(client.hgetall(keys.lease("team", "shop", app).lease))

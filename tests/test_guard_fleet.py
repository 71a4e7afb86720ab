"""A guard in a fleet: what it publishes, how it keeps its lease, what it is asked from elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from devsup.fleet import membership
from devsup.fleet.membership import Membership, Mine
from devsup.guard import job as jobs
from devsup.guard import launch
from devsup.guard.job import Job
from devsup.models import Identity, State
from devsup.registry import public
from tests.registry_child import make_row

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MEMBERSHIP = Membership(
    "default", "host-a", "example.com/shop", 3.0, "stop", Mine("web", "0123456789abcdef", 17)
)


def a_job(home: Path, **fields: Any) -> Job:
    """Return the job of a row as tests have them."""
    row = make_row("a1b2c3d4e5f6", project=str(home), cwd=str(home))
    own = {
        "home": str(home), "executable": "/bin/true", "port": None, "default_port": None, "probe": {},
        "policy": {}, "fleet": None,
    } | fields  # fmt: skip
    return Job(**{name: own[name] if name in own else getattr(row, name) for name in Job._fields})


# -- what it is told ------------------------------------------------------------------------------------


def test_a_job_says_what_its_server_is_to_the_fleet(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    jobs.write(str(path), a_job(tmp_path, fleet=MEMBERSHIP.plain()))
    assert membership.read(jobs.read(str(path)).fleet) == MEMBERSHIP


def test_a_job_of_an_older_version_is_in_no_fleet(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    fields = a_job(tmp_path).asdict()
    del fields["fleet"]
    path.write_text(json.dumps(fields))
    assert jobs.read(str(path)).fleet is None


def test_a_server_does_not_hear_where_redis_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address may hold a password. The guard goes on having it: it runs more than one generation."""
    monkeypatch.setenv(membership.ADDRESS, "redis://:geheim@127.0.0.1:1")
    for _ in range(2):
        environ = launch.environment(a_job(tmp_path))
        assert membership.ADDRESS.encode() not in environ
        assert not any(b"geheim" in value for value in environ.values())


def test_what_is_published_is_the_public_record_without_secrets() -> None:
    guard, leader = Identity(7, 1, "boot"), Identity(8, 1, "boot")
    row = make_row("a1b2c3d4e5f6", command=["serve", "--token", "geheim-123"], guard=guard, leader=leader)
    fields = public.published(row, State.READY, pid=8, url="http://ann:geheim@localhost:3000")
    assert json.loads(json.dumps(fields)) == fields
    assert (fields["state"], fields["pid"], fields["guard_pid"]) == ("ready", 8, 7)
    assert fields["command"] == ["serve", "--token", "***"]
    assert "geheim" not in json.dumps(fields)

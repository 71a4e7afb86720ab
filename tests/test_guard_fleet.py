"""A guard in a fleet: what it publishes, how it keeps its lease, what it is asked from elsewhere."""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING, Any

import pytest

from devsup.fleet import membership, note
from devsup.fleet.membership import Membership, Mine
from devsup.guard import job as jobs
from devsup.guard import launch
from devsup.guard.job import Job
from devsup.models import Identity, State
from devsup.paths import Home, ensure_home
from devsup.registry import public, recovery
from devsup.system.alarm import Alarm, boottime
from tests.registry_child import make_row

if TYPE_CHECKING:
    from pathlib import Path

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


# -- the note of its lease ------------------------------------------------------------------------------


def test_a_note_says_how_long_a_lease_is_held(home: Path) -> None:
    place = Home(str(home))
    ensure_home(place)
    assert note.shown(place, "a1") is None
    kept = note.Note(place, "a1")
    kept.write(held=True, fencing=1 << 40, until=boottime() + 60, renewed_at=1_000, expires_at=61_000)
    assert note.shown(place, "a1") == {
        "state": "held",
        "token": "***",
        "fencing": 1 << 40,
        "expires_at": "1970-01-01T00:01:01.000Z",
        "renewed_at": "1970-01-01T00:00:01.000Z",
    }
    # Nobody has to write that the time is over: a frozen guard could not.
    kept.write(held=True, fencing=2, until=boottime() - 1, renewed_at=None, expires_at=None)
    assert (note.shown(place, "a1") or {})["state"] == "lost"
    kept.write(held=False, fencing=2, until=boottime() + 60, renewed_at=None, expires_at=None)
    assert (note.shown(place, "a1") or {})["state"] == "lost"
    kept.close()


def test_a_note_is_no_job_and_goes_with_one(home: Path, project: Path) -> None:
    place = Home(str(home))
    ensure_home(place)
    job = a_job(project)
    jobs.write(place.job(job.id), job)
    kept = note.Note(place, job.id)
    kept.write(held=True, fencing=1, until=boottime(), renewed_at=None, expires_at=None)
    kept.close()
    assert [row.id for row in recovery.living(place)] == [job.id]
    jobs.remove(place.job(job.id))
    assert os.listdir(place.servers) == []


def test_an_alarm_is_ready_at_its_time_and_not_again_once_it_is_moved() -> None:
    alarm = Alarm()
    if alarm.fd is None:
        pytest.skip("no timerfd here")
    poll = select.poll()
    poll.register(alarm.fd, select.POLLIN)
    alarm.set(boottime() + 0.05)
    assert not poll.poll(0)
    assert poll.poll(10_000)
    alarm.set(boottime() - 5)
    assert poll.poll(0)
    alarm.set(None)
    assert not poll.poll(0)
    alarm.set(boottime() + 3600)
    assert not poll.poll(0)
    alarm.close()

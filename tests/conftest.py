"""Fixtures: a home and a project per test, processes that cannot leak, a look round at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from devsup import masking
from tests.fleet_support import Host, Hosts
from tests.redis_support import RedisServer, missing_reason
from tests.support import (
    COMMAND_TIMEOUT,
    ROOT,
    Answer,
    Devsup,
    DevsupPopen,
    Leftovers,
    RealApp,
    Spawn,
    StandIn,
    clean_environment,
    copy_app,
    devsup_argv,
    end_all,
    node_is_missing,
    processes_of,
    run_devsup,
    server_argv,
    with_changes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# By Hypothesis's own choice an example that takes 0.2 s has failed, unless it is told that this is a CI: one
# pause of a busy machine does that to any of a hundred examples, and the next try calls the test unreliable.
settings.register_profile("devsup", settings.default, deadline=None)
settings.load_profile("devsup")

# What a shell without job control runs in the background ignores it, and so would every program of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests on real apps where these are not installed; run them one after another in one worker."""
    real = [item for item in items if item.get_closest_marker("real")]
    reason = node_is_missing() if real else None
    for item in real:
        item.add_marker(pytest.mark.xdist_group("real"))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Give a folder with a short real path: pytest's own are too long for sockets and screens."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="dv-")))
    yield folder
    _make_removable(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _make_removable(folder: Path) -> None:
    # A test of read-only folders may have failed before it gave the permissions back.
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)


@pytest.fixture(autouse=True)
def leftovers(
    request: pytest.FixtureRequest, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Leftovers]:
    """
    Give every test an environment of its own and look round at its end.

    A process that still carries one of the test's homes is ended, and the test fails unless it said so
    before: by the marker `leftovers_expected` or by `leftovers.expected = True`.
    """
    home = temporary / "home"
    environment = clean_environment(os.environ, home)
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Per process: what an earlier test taught must not be masked in the texts of this one.
    monkeypatch.setattr(masking, "_literals", set())
    watch = Leftovers()
    watch.expected = request.node.get_closest_marker("leftovers_expected") is not None
    watch.watch(home)
    yield watch
    left = watch.finish()
    if left and not watch.expected:
        pytest.fail("still running at the end of the test:\n" + "\n".join(map(str, left)))


@pytest.fixture
def home(leftovers: Leftovers) -> Path:
    """Give the folder that is DEVSUP_HOME for this test: there, empty, 0700."""
    folder = leftovers.homes[0]
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def project(temporary: Path) -> Path:
    """Give an empty project; its `devsup.toml` keeps the search for its root from going further up."""
    folder = temporary / "project"
    folder.mkdir()
    (folder / "devsup.toml").touch()
    return folder


@pytest.fixture
def spawn(leftovers: Leftovers) -> Iterator[Spawn]:
    """Start Python processes that cannot outlive the test."""
    del leftovers  # set up first, so torn down last
    with ExitStack() as stack:

        def start(
            code: str, *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
        ) -> Popen[str]:
            argv = [sys.executable, "-c", code, *map(str, args)]
            environment = with_changes(env)
            child = stack.enter_context(
                Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, env=environment, cwd=cwd)
            )
            stack.callback(child.kill)  # unwinds first, so the wait in Popen.__exit__ cannot hang
            return child

        yield start


@pytest.fixture
def devsup(leftovers: Leftovers, home: Path, project: Path) -> Devsup:
    """Run `devsup ARGS` in the test's project and home, and return its answer."""
    del leftovers, home

    def run(
        *args: object,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002 - the word that subprocess.run uses
        timeout: float = COMMAND_TIMEOUT,
    ) -> Answer:
        return run_devsup(*args, cwd=cwd or project, env=env, input=input, timeout=timeout)

    return run


@pytest.fixture
def devsup_popen(leftovers: Leftovers, home: Path, project: Path) -> Iterator[DevsupPopen]:
    """Start `devsup ARGS` without waiting for it, as often as a test likes."""
    del leftovers, home
    with ExitStack() as stack:

        def start(
            *args: object, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
        ) -> Popen[str]:
            child = stack.enter_context(
                Popen(
                    devsup_argv(*args),
                    cwd=cwd or project,
                    env=with_changes(env),
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=PIPE,
                    text=True,
                )
            )
            stack.callback(child.kill)
            return child

        yield start


@pytest.fixture
def stand_in(leftovers: Leftovers, temporary: Path, project: Path) -> Iterator[StandIn]:
    """Start stand-in servers as a stranger would: not by devsup."""
    del leftovers
    # Not the home: by this the ones of this fixture are found, and ended before anybody looks round.
    token = f"stranger-{uuid.uuid4().hex}"
    with ExitStack() as stack:

        def start(
            name: str, *args: object, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
        ) -> Popen[bytes]:
            log = stack.enter_context((temporary / f"{name}.log").open("ab"))
            environment = {"DEVSUP_HOME": None, **(env or {}), "DEVSUP_TEST_STRANGER": token}
            argv = server_argv(name, *args)
            changed = with_changes(environment)
            where = cwd or project
            return stack.enter_context(
                Popen(
                    argv,
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=changed,
                    cwd=where,
                    start_new_session=True,
                )
            )

        try:
            yield start
        finally:
            end_all(lambda: processes_of(token))


@pytest.fixture
def real_app(leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> Iterator[RealApp]:
    """Copy real apps; the caches that Metro shares between projects go into the test's folder."""
    del leftovers
    monkeypatch.setenv("TMPDIR", str(temporary))
    base = ROOT / ".test-apps"  # inside the tree: only on one file system can files be linked
    base.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="", dir=base))
    yield lambda name: copy_app(name, folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_server(leftovers: Leftovers, temporary: Path) -> Iterator[RedisServer]:
    """Give a Redis of the test's own, not yet started: for faults and settings."""
    del leftovers
    if reason := missing_reason():
        pytest.skip(reason)
    with RedisServer(temporary) as server:
        yield server


@pytest.fixture(scope="session")
def _redis_of_this_worker() -> Iterator[RedisServer]:
    if reason := missing_reason():
        pytest.skip(reason)
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="dv-redis-")))
    with RedisServer(folder) as server:
        yield server.start()
    shutil.rmtree(folder)


@pytest.fixture
def shared_redis(_redis_of_this_worker: RedisServer) -> RedisServer:
    """Give a running, empty Redis that other tests of this worker use before and after: not to be hurt."""
    _redis_of_this_worker.flush()
    return _redis_of_this_worker


@pytest.fixture
def hosts(leftovers: Leftovers, shared_redis: RedisServer, temporary: Path) -> Hosts:
    """Make hosts that share one Redis; what runs on them is looked for at the end as anywhere."""

    def make(*names: str, url: str | None = None) -> list[Host]:
        made = [Host(temporary, name, url or shared_redis.url) for name in names]
        for one in made:
            leftovers.watch(one.home)
        return made

    return make

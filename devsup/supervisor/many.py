"""
Start the apps of a project in the order of their dependencies, and stop them in the reverse.

Each app is started by the same code as `start`, in a thread of its own, so any number of `up` at once, beside
any number of `start`, still make one server of each. The threads only start and report; what happens next is
decided in the thread that called. A failure skips what waits on it and touches nothing else. A caller that is
killed leaves what each start leaves: a tracked server or nothing.
"""

from __future__ import annotations

import queue
import threading
import time

from devsup import identity
from devsup.apps import commands, configured, detect
from devsup.apps.presets import COMMAND, KINDS
from devsup.errors import ConfigInvalid, DevsupError, InternalError, Interrupted, PortTaken
from devsup.models import Outcome, Row, Server, StartResult, StopResult, StopResults, UpResult, UpResults
from devsup.registry import Registry
from devsup.supervisor import planning
from devsup.supervisor.view import Life, life
from devsup.supervisor.waiting import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.apps.detect import App, Survey
    from devsup.config import Config
    from devsup.fleet.membership import Membership
    from devsup.fleet.settings import Settings
    from devsup.supervisor.core import Supervisor
    from devsup.supervisor.start import Starter

__all__ = ["down", "up"]

#: Seconds that the starts on their way get to end after an interruption: a hand-over may take 5.
_LAST_MOMENTS = 8.0
#: Seconds between two looks at the starts, for who watches.
_LOOK_EVERY = 0.1


def up(
    supervisor: Supervisor,
    names: Sequence[str],
    *,
    timeout: float | None,
    env: Mapping[str, str] | None,
    environ: Mapping[str, str],
    usual_timeout: float,
    on_progress: Callable[[Progress], None] | None,
) -> UpResults:
    """Start ``names`` with what they depend on, or every app of the project; see `Supervisor.up`."""
    config = configured.load(supervisor.project, supervisor.home)
    seen = configured.apply(detect.survey(supervisor.project, supervisor.cwd), config)
    wanted, notes = _wanted(seen, config, names)
    order, needs = _in_order(seen, config, wanted)
    run = _Run(supervisor, order, needs, on_progress)
    plans: dict[str, Plan] = {}
    fleets: dict[str, tuple[Settings, Membership] | None] = {}
    call = commands.Call(supervisor.project, supervisor.cwd, None, dict(env or {}), environ, config)
    for name in order:
        app = seen.named(name)
        assert app is not None
        try:
            plan = commands.of_app(seen, app, call)
            supervisor.confine(plan.cwd)
            fleets[name] = planning.fleet_of(supervisor, plan, config, environ)
            plans[name] = plan
        except DevsupError as error:
            run.end(name, UpResult(name, "failed", None, _plain(error)))
    moved = {
        name: commands.of_app(seen, seen.choose(name), call.replace(port="auto"))
        for name, plan in plans.items()
        if _may_move(plan)
    }
    for name, plan in _with_ports_apart(plans, moved):
        allowed = timeout if timeout is not None else plan.timeout or usual_timeout
        run.prepare(name, plan, moved.get(name), allowed, environ, env or {}, fleets[name])
    results = run.go()
    return UpResults(results, [*notes, *run.notes])


def _wanted(seen: Survey, config: Config | None, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the apps to start, and notes on what is left out."""
    if names:
        return list(dict.fromkeys(_chosen(seen, name).name for name in names)), []
    if config is not None and config.apps:
        return list(config.apps), []
    if not seen.apps:
        _chosen(seen, None)  # says that there is none
    # What stands beside another app (Storybook) is meant only by its name.
    alone = [app for app in seen.apps if not KINDS[app.kind].companion]
    servers = [app for app in alone if not detect.runs_others(app)] or seen.apps
    sure = [app for app in servers if app.kind != COMMAND.name or app.script == "dev"] or servers
    left = [app.name for app in servers if app not in sure]
    notes = [
        f"`{name}` is left out: its `start` script may be no server; `devsup up {name}`" for name in left
    ]
    return [app.name for app in sure], notes


def _chosen(seen: Survey, name: str | None) -> App:
    try:
        return seen.choose(name)
    except DevsupError as error:
        if error.hint is not None and error.hint.startswith("devsup start ") and " -- " not in error.hint:
            error.hint = error.hint.replace("start", "up", 1)
        raise


def _in_order(
    seen: Survey, config: Config | None, wanted: Iterable[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return ``wanted`` and all that it depends on, dependencies first, and what each depends on."""
    order: dict[str, None] = {}
    needs: dict[str, list[str]] = {}
    for first in wanted:
        # No recursion: a chain may be long. Each waits on the way until its needs are in order.
        on_the_way = [first]
        while on_the_way:
            name = on_the_way[-1]
            if name not in needs:
                needs[name] = configured.check_dependencies(seen, config, name)
            missing = next((other for other in needs[name] if other not in needs), None)
            if missing is not None:
                on_the_way.append(missing)
            else:
                order[on_the_way.pop()] = None
    return list(order), needs


def _may_move(plan: Plan) -> bool:
    """Tell whether a plan's port is only its kind's usual one, and nobody minds another."""
    return plan.port_source == "default" and KINDS[plan.kind].role != "mobile" and not plan.recipe.fixed


def _with_ports_apart(plans: dict[str, Plan], moved: dict[str, Plan]) -> list[tuple[str, Plan]]:
    """Return the plans, those that would want the usual port of another one as they are in ``moved``."""
    given = {plan.port for name, plan in plans.items() if name not in moved}
    found = []
    for name, plan in plans.items():
        found.append((name, moved[name] if name in moved and plan.port in given else plan))
        given.add(found[-1][1].port)
    return found


class _One:
    """One app on its way up."""

    def __init__(self, starter: Starter, moved: Plan | None, allowed: float) -> None:
        self.starter = starter
        #: The same on any port, for where its usual one is taken.
        self.moved = moved
        self.allowed = allowed
        self.text = "waiting"
        self.log: str | None = None
        self.began = 0.0


class _Run:
    """
    The starts of one `up`.

    Invariant, kept by `go`: an app is started when all that it needs is up, and never where one is not.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        order: list[str],
        needs: dict[str, list[str]],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.supervisor = supervisor
        self.order = order
        self.needs = needs
        self.notes: list[str] = []
        self.results: dict[str, UpResult] = {}
        self.ones: dict[str, _One] = {}
        self.threads: dict[str, threading.Thread] = {}
        self.heard: queue.SimpleQueue[tuple[str, UpResult, list[str]]] = queue.SimpleQueue()
        self._call = on_progress

    def prepare(
        self,
        name: str,
        plan: Plan,
        moved: Plan | None,
        allowed: float,
        environ: Mapping[str, str],
        env: Mapping[str, str],
        fleet: tuple[Settings, Membership] | None,
    ) -> None:
        """Make the start of ``name``, to be begun when its time has come."""
        from devsup.supervisor.start import Starter

        def tell(progress: Progress) -> None:
            one.text, one.log = progress.text, progress.log

        # The deadline is set when it begins.
        starter = Starter(
            self.supervisor.home, plan, project=self.supervisor.project, deadline=0.0, wait=True,
            environ=environ, given_env=env, on_progress=tell, fleet=fleet,
        )  # fmt: skip
        one = self.ones[name] = _One(starter, moved, allowed)

    def end(self, name: str, result: UpResult) -> None:
        """Note how ``name`` came out; what waits on it in vain is skipped."""
        self.results[name] = result
        if result.outcome in ("started", "reused"):
            return
        for other in self.order:
            if name in self.needs[other] and other not in self.results:
                slow = result.error is not None and result.error["code"] == "not_ready"
                why = "is not ready" if slow else "was not started"
                self.notes.append(f"`{other}` was skipped: it depends on `{name}`, which {why}")
                self.end(other, UpResult(other, "skipped", None, None))

    def go(self) -> list[UpResult]:
        """
        Start everything and return how it came out, in the order of dependencies.

        :raises Interrupted: with what runs
        """
        try:
            while len(self.results) < len(self.order):
                self._begin()
                self._hear(_LOOK_EVERY)
        except (KeyboardInterrupt, Interrupted):  # a listener may end it, too
            raise self._interrupted() from None
        return [self.results[name] for name in self.order]

    def _begin(self) -> None:
        for name in self.order:
            if name in self.results or name in self.threads:
                continue
            if all(other in self.results for other in self.needs[name]):
                one = self.ones[name]
                one.began = time.monotonic()
                one.starter.began, one.starter.deadline = one.began, one.began + one.allowed
                one.text = "starting"
                self.threads[name] = threading.Thread(target=self._start, args=(name, one), daemon=True)
                self.threads[name].start()

    def _hear(self, seconds: float) -> None:
        try:
            name, result, notes = self.heard.get(timeout=seconds)
        except queue.Empty:
            pass
        else:
            self.notes += [f"{name}: {note}" for note in notes]
            self.end(name, result)
        if self._call is not None:
            self._call(self._progress())

    def _start(self, name: str, one: _One) -> None:
        """Run in a thread of its own: start ``name`` and say how it came out."""
        notes: list[str] = []
        try:
            try:
                result = one.starter.run()
            except PortTaken:
                if one.moved is None:
                    raise
                usual, one.starter.plan = one.starter.plan.port, one.moved
                result = one.starter.run()
                notes = [f"port {usual} is taken; it got one of its own"] if not result.reused else []
            outcome = UpResult(name, "reused" if result.reused else "started", result.server, None)
            notes = [*notes, *result.notes, *one.starter.registry.warnings]
        except DevsupError as error:
            outcome = UpResult(name, "failed", _server_in(error), _plain(error))
        except BaseException as error:
            outcome = UpResult(name, "failed", None, _plain(_bug(error)))
        self.heard.put((name, outcome, notes))

    def _progress(self) -> Progress:
        lines, log, on_the_way = [], None, []
        for name in self.order:
            one, result = self.ones.get(name), self.results.get(name)
            if result is not None:
                where = result.server.url if result.server is not None and result.server.url else ""
                lines.append(f"{name}: {result.outcome} {where}".rstrip())
            elif name in self.threads and one is not None:
                on_the_way.append(name)
                log = one.log or log
                lines.append(f"{name}: {one.text} ({int(time.monotonic() - one.began)} s)")
            else:
                lines.append(f"{name}: waits on {', '.join(self.needs[name])}")
        done = len(self.results)
        return Progress(f"{done} of {len(self.order)} done", log if len(on_the_way) == 1 else None, lines)

    def _interrupted(self) -> Interrupted:
        """Let what is on its way be recorded, begin nothing more, and say what runs."""
        self._call = None
        for one in self.ones.values():
            one.starter.deadline = time.monotonic()
        until = time.monotonic() + _LAST_MOMENTS
        for name, thread in self.threads.items():
            while name not in self.results and thread.is_alive() and time.monotonic() < until:
                self._hear(_LOOK_EVERY)
        while not self.heard.empty():
            self._hear(0)
        for name in self.order:
            if name not in self.results:
                self.end(name, UpResult(name, "skipped", None, None))
        results = [self.results[name] for name in self.order]
        running = [one for one in results if one.server is not None and one.server.pid is not None]
        said = ", ".join(
            f"`{one.app}` ({one.server.state.value}, pid {one.server.pid})" for one in running if one.server
        )
        return Interrupted(
            f"interrupted; what runs: {said}" if running else "interrupted; nothing was started",
            hint="devsup down" if running else "devsup up",
            data=UpResults(results, self.notes),
        )


def _plain(error: DevsupError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        "details": {key: value for key, value in error.details.items() if key != "server"},
    }


def _bug(error: BaseException) -> InternalError:
    return InternalError(f"a bug in devsup: {type(error).__name__}: {error}", hint="devsup list")


def _server_in(error: DevsupError) -> Server | None:
    if isinstance(error.data, StartResult):
        return error.data.server
    server = error.details.get("server")
    return server if isinstance(server, Server) and error.code != "name_taken" else None


# -- down ----------------------------------------------------------------------------------------------


def down(
    supervisor: Supervisor,
    names: Sequence[str],
    *,
    grace: float | None,
    sweep: bool,
    refuse: Callable[[Row], DevsupError | None] | None,
) -> StopResults:
    """Stop ``names`` after what depends on them, or everything of the project; see `Supervisor.down`."""
    from devsup.supervisor.stop import stop_all_of

    needs, known, notes = _needs(supervisor)
    registry = Registry(supervisor.home)
    rows = [
        row
        for row in registry.rows(scope=identity.here().key, project=supervisor.project)
        if life(row) is not Life.FOREIGN and supervisor.may_see(row.cwd)
    ]
    named = {row.app: row for row in rows if row.app is not None}
    others: list[str] = []
    absent: list[StopResult] = []
    if names:
        wanted = _with_dependents([name for name in names if name in named], needs)
        rows = [row for name, row in named.items() if name in wanted]
        for name in names:
            if name not in named and name in known:
                absent.append(_absent(name))
            elif name not in named:
                others.append(name)  # a session, a pid, a port; or nothing
    results: list[StopResult] = []
    for level in _levels(rows, needs) or [[]]:
        texts, others = others, []
        stopped = stop_all_of(
            supervisor.home, supervisor.project, texts, level, grace=grace, sweep=sweep, refuse=refuse,
            within=supervisor.within,
        )  # fmt: skip
        results += stopped.results
        notes += stopped.notes
    return StopResults([*results, *absent], [*registry.warnings, *notes])


def _needs(supervisor: Supervisor) -> tuple[dict[str, list[str]], set[str], list[str]]:
    """Return what each app depends on, the names of all apps, and why that may not be known."""
    try:
        config = configured.load(supervisor.project, supervisor.home)
        seen = configured.apply(detect.survey(supervisor.project, supervisor.cwd), config)
    except ConfigInvalid as error:
        # A file that is just being edited is no reason to let servers run.
        return {}, set(), [f"stopped without an order: {error.message}"]
    apps = config.apps if config is not None else {}
    needs = {name: settings.get("depends_on", []) for name, settings in apps.items()}
    return needs, {app.name for app in seen.apps}, []


def _with_dependents(names: Iterable[str], needs: dict[str, list[str]]) -> set[str]:
    found = set(names)
    while more := {
        name for name, others in needs.items() if name not in found and found.intersection(others)
    }:
        found |= more
    return found


def _levels(rows: list[Row], needs: dict[str, list[str]]) -> list[list[Row]]:
    """Return ``rows`` in groups: each after those that depend on one of it, directly or through others."""
    left, levels = list(rows), []
    while left:
        wanted = {other for row in left for other in _all_needs(row.app, needs)}
        # A circle, which a file of before may have had, is stopped at once.
        level = [row for row in left if row.app not in wanted] or left
        levels.append(level)
        left = [row for row in left if row not in level]
    return levels


def _all_needs(app: str | None, needs: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    more = set(needs.get(app or "", ()))
    while more:
        found |= more
        more = {other for name in more for other in needs.get(name, ())} - found
    return found


def _absent(name: str) -> StopResult:
    return StopResult(
        target=name,
        server=None,
        outcome=Outcome.ALREADY_STOPPED,
        signals=[],
        escalated=False,
        ms=0,
        survivors=[],
        left_running=[],
        port_free=None,
    )

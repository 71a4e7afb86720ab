"""
A guard's first moments: it claims its server and runs it, and loads the rest of itself while that comes up.

Nobody waits for what a guard knows of readiness, ends and restarts before there is a server, and loading it
takes as long as all that is done here. It is all there before the server can be declared ready. Should it not
be, since the package was removed within these moments, the guard dies: its server is recorded and lives, and
the next start gives it another guard. What takes a server over, or is in a fleet, loads everything first.

For the guard's one thread.
"""

from __future__ import annotations

from devsup import identity, system
from devsup.guard import job as jobs
from devsup.guard import launch
from devsup.guard.spawn import ADOPT
from devsup.guard.talk import Caller, Signals
from devsup.paths import Home
from devsup.records import Record
from devsup.registry import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.guard.job import Job
    from devsup.guard.launch import Launched

__all__ = ["Begun", "main"]


class Begun(Record):
    """A claimed server that was launched; ``strangers`` are the sockets that listened before that."""

    signals: Signals
    caller: Caller
    strangers: frozenset[int]
    launched: Launched


def main(argv: list[str]) -> int:
    """Guard the server that ``argv`` (HOME, ID, GENERATION, MODE) names; its own log is descriptor 2."""
    root, server, _, mode, *_ = argv
    system.become_subreaper()
    home = Home(root)
    job = jobs.read(home.job(server))
    system.set_title(f"devsup {job.app or job.session}")
    if mode == ADOPT or job.fleet is not None:
        from devsup.guard.loop import Guard

        if job.fleet is not None:
            import devsup.guard.fleet  # noqa: F401 - before it is needed: the package may be gone then
        return Guard(job, adopt=mode == ADOPT).run()
    begun = _begin(job, Registry(home))
    if begun is None:
        return 0
    from devsup.guard.loop import Guard

    return Guard(job, adopt=False, begun=begun).run()


def _begin(job: Job, registry: Registry) -> Begun | None:
    """Claim the server and run it; None where somebody else has it: its caller died, or it was stopped."""
    signals, caller, me = Signals(), Caller(), identity.me()
    signals.listen()
    if not registry.claim(job.id, job.generation, me):
        return None
    caller.say("c")
    strangers = launch.listening()
    launched = launch.launch(job, me, registry)
    if launched.refused is None:
        caller.say("l")
    return Begun(signals, caller, strangers, launched)

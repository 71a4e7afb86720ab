"""
Work that is announced on a server, so that a stop waits for it.

An operation stands in the registry with the identity of its process: when that is proven dead it does not
count any more, so nothing is left to undo after a crash. It is recorded only while nobody has claimed the
stop, in one transaction; a stop claims only where it sees none, in one transaction too. So either the stop
waits for the operation, or the operation is refused. Any number of threads, tasks and processes may have
operations on one server, unless one of them asks for it exclusively.
"""

from __future__ import annotations

import os
import time
from _contextvars import ContextVar

from devsup import identity
from devsup.clock import now_ms
from devsup.errors import Busy, DevsupError, LockTimeout, NotFound, NotOurs
from devsup.models import State, StopClaim
from devsup.registry import Registry
from devsup.supervisor import loops
from devsup.supervisor.view import OVER, Life, life, server_of, whose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _contextvars import Token
    from collections.abc import Callable

    from devsup.models import Operation, Row, Server
    from devsup.supervisor.core import Supervisor

__all__ = ["InFlight", "described", "own"]

#: How often what dead processes have left is taken out, where no stop does it.
_SWEEP_EVERY = 16
#: Seconds between two looks: at first and at most.
_SOON, _LATER = 0.02, 0.5
#: How often an operation is taken back though a Ctrl-C comes amid it; who presses it more often wants out.
_TRIES = 3

#: The operations of this thread or task: a stop inside one of them does not wait for it. By the server, too:
#: each state folder has numbers of its own.
_own: ContextVar[frozenset[tuple[str, int]]] = ContextVar("operations", default=frozenset())


def own(server: str) -> frozenset[int]:
    """Return the numbers of the operations with ``server`` that the calling thread or task is in."""
    return frozenset(number for id_, number in _own.get() if id_ == server)


def described(one: Operation | StopClaim) -> str:
    """Return what is in flight, whose and for how long, for a sentence."""
    return f"`{one.purpose}` of pid {one.by.pid} for {max(0, now_ms() - one.since) / 1e3:.0f} s"


class InFlight:
    """
    One operation, as a context manager; it gives the server's record.

    :raises NotFound: on entering: no such server, or it has ended
    :raises NotOurs: on entering: it is another machine's or container's
    :raises Busy: on entering: it is being stopped, or its restart took too long
    :raises LockTimeout: on entering: others had it all the time
    """

    def __init__(
        self, supervisor: Supervisor, target: str, *, purpose: str, exclusive: bool, timeout: float
    ) -> None:
        self._supervisor = supervisor
        self._target = target
        self._purpose = purpose
        self._exclusive = exclusive
        self._timeout = timeout
        self._registry = Registry(supervisor.home)
        self._number = 0
        self._server = ""
        self._pid = 0
        self._token: Token[frozenset[tuple[str, int]]] | None = None

    def __enter__(self) -> Server:
        loops.refuse("Supervisor.operation", "devsup.aio.Supervisor.operation(...)")
        try:
            server = self.begin(time.sleep)
            self.enter()
        except KeyboardInterrupt:  # where it is recorded already nobody else would take it back
            self._take_back()
            raise
        return server

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.leave()
            self.end()
        except DevsupError:
            if kind is None:  # what went wrong in the body is the one to tell
                raise
        except BaseException:  # a Ctrl-C amid that: who catches it lives on, so it would stand for ever
            self._take_back()
            raise

    def begin(self, rest: Callable[[float], None]) -> Server:
        """Record it, and wait by ``rest(seconds)`` where it has to; an exception of that leaves nothing."""
        if self._number and self._pid == os.getpid():
            raise RuntimeError(f"this operation on `{self._target}` is open already: make another one")
        deadline, pause = time.monotonic() + self._timeout, _SOON
        while True:
            row, alive = self._find()
            answer = self._registry.begin_operation(
                row.id, row.generation, identity.me(), self._purpose, exclusive=self._exclusive
            )
            if isinstance(answer, int):
                self._number, self._server, self._pid = answer, row.id, os.getpid()
                try:
                    if answer % _SWEEP_EVERY == 0:
                        self._registry.in_flight(row.id)
                    return server_of(row, alive)
                except BaseException:
                    self._take_back()
                    raise
            if answer is None:
                continue  # it has just ended, or begun again
            if isinstance(answer, StopClaim):
                self._refuse_stopped(row, answer, over=time.monotonic() >= deadline)
            elif not (others := self._registry.living(answer)):
                continue
            elif time.monotonic() >= deadline:
                raise LockTimeout(
                    f"`{row.session}` is in use: {described(others[0])}",
                    hint=f"devsup status {row.app or row.session}",
                    details={"holder": others[0].by.pid, "age_ms": now_ms() - others[0].since},
                )
            rest(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 2, _LATER)

    def enter(self) -> None:
        """Count it as the calling thread's or task's own."""
        self._token = _own.set(_own.get() | {(self._server, self._number)})

    def leave(self) -> None:
        """Undo `enter`."""
        token, self._token = self._token, None
        if token is not None:
            try:
                _own.reset(token)
            except ValueError:
                pass  # another thread or task leaves it than has entered it, whose own it never was

    def end(self) -> None:
        """Take it back, if it was recorded by this very process."""
        if self._number and self._pid == os.getpid():
            self._registry.end_operations([self._number])
            self._number = 0

    def _take_back(self) -> None:
        """End it for the sake of an exception that is on its way, which nothing here may replace."""
        for _ in range(_TRIES):
            try:
                return self.end()
            except KeyboardInterrupt:
                pass  # one Ctrl-C often comes twice: from the terminal, and from whoever passes it on
            except DevsupError:
                return None
        return None

    def _find(self) -> tuple[Row, Life]:
        found, alive = self._supervisor._find(self._target)  # noqa: SLF001 - the two modules are one
        row, name = found.row, found.row.app or found.row.session
        if alive in OVER:
            raise NotFound(f"`{row.session}` does not run", hint=f"devsup restart {name}")
        if row.state is State.STOPPING and row.stop is None:  # its guard ends it: its time is over, say
            raise Busy(
                f"`{row.session}` is being stopped",
                hint=f"devsup wait {name} --gone" if alive is Life.LIVE else f"devsup stop {name}",
            )
        if alive is Life.FOREIGN:
            raise NotOurs(f"`{row.session}` belongs to {whose(row)}", hint=f"devsup status {name}")
        return row, alive

    @staticmethod
    def _refuse_stopped(row: Row, claim: StopClaim, *, over: bool) -> None:
        name = row.app or row.session
        if claim.purpose == "stop":
            raise Busy(
                f"`{row.session}` is being stopped by pid {claim.by.pid}", hint=f"devsup wait {name} --gone"
            )
        if over:
            raise Busy(f"`{row.session}` is being restarted: {described(claim)}", hint=f"devsup wait {name}")
        if life(row) is Life.ORPHANED and identity.is_gone(claim.by):
            raise Busy(f"the restart of `{row.session}` was killed", hint=f"devsup restart {name}")

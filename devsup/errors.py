"""
Every error a caller can see, and its exit status.

* DevsupError
  x InternalError          internal               exit 1
  x UsageError             usage                  exit 2
  x NotFound               not_found              exit 3
  x Ambiguous              ambiguous              exit 3
  x PortTaken              port_taken             exit 4   retryable
  x UnmanagedRunning       unmanaged_running      exit 4   retryable
  x ExitedEarly            exited_early           exit 5
  x StoppedMeanwhile       stopped_meanwhile      exit 5
  x NotReady               not_ready              exit 6   retryable
  x LockTimeout            lock_timeout           exit 7   retryable
  x LockLost               busy                   exit 7   retryable
  x LockOrderError         internal               exit 1
  x Busy                   busy                   exit 7   retryable
  x Survivors              survivors              exit 8   retryable
  x PortHeld               port_held              exit 8   retryable
  x ConfigInvalid          config_invalid         exit 9
  x MissingExecutable      missing_executable     exit 9
  x MissingDependencies    missing_dependencies   exit 9
  x UnsupportedPlatform    unsupported_platform   exit 9
  x LimitReached           limit_reached          exit 10  retryable
    x PoolExhausted        limit_reached          exit 10  retryable
  x RegistryUnusable       registry_unusable      exit 11
  x NotOurs                not_ours               exit 12
    x NotOwner             not_ours               exit 12
  x OtherOwner             other_owner            exit 12
  x NameTaken              name_taken             exit 12
  x InsideItself           inside_itself          exit 12
  x FleetUnreachable       fleet_unreachable      exit 13  retryable
  x LeaseHeldElsewhere     lease_held_elsewhere   exit 13  retryable
  x Unhealthy              unhealthy              exit 14
  x Interrupted            interrupted            exit 130 retryable
  x Terminated             terminated             exit 143 retryable

A message says what, which and how long: lower case, literals in backticks, no full stop. A hint is the next
command to type, or a sentence where no devsup command helps.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

__all__ = [
    "Ambiguous",
    "Busy",
    "ConfigInvalid",
    "DevsupError",
    "ExitedEarly",
    "FleetUnreachable",
    "InsideItself",
    "InternalError",
    "Interrupted",
    "LeaseHeldElsewhere",
    "LimitReached",
    "LockLost",
    "LockOrderError",
    "LockTimeout",
    "MissingDependencies",
    "MissingExecutable",
    "NameTaken",
    "NotFound",
    "NotOurs",
    "NotOwner",
    "NotReady",
    "OtherOwner",
    "PoolExhausted",
    "PortHeld",
    "PortTaken",
    "RegistryUnusable",
    "StoppedMeanwhile",
    "Survivors",
    "Terminated",
    "Unhealthy",
    "UnmanagedRunning",
    "UnsupportedPlatform",
    "UsageError",
]


class DevsupError(Exception):
    """
    Base of every error devsup raises on purpose.

    ``details`` carry what a program needs; ``data`` is what the command can answer all the same (a server
    that is still starting). Both hold plain JSON values or records.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    #: Whether the same call can succeed later with nothing changed by the caller.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: dict[str, Any] | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details or {}
        self.data = data

    def __str__(self) -> str:
        return self.message


class InternalError(DevsupError):
    """A bug in devsup; the message says where its report lies."""


class UsageError(DevsupError):
    """The call is wrong: a flag, a port, a name, a folder."""

    code, exit_code = "usage", 2


class NotFound(DevsupError):
    """No such app, server or target."""

    code, exit_code = "not_found", 3


class Ambiguous(DevsupError):
    """Several things have this name; ``details["candidates"]`` lists them."""

    code, exit_code = "ambiguous", 3


class PortTaken(DevsupError):
    """Somebody else listens on the port; ``details["holder"]`` says who."""

    code, exit_code, retryable = "port_taken", 4, True


class UnmanagedRunning(DevsupError):
    """A server of this app runs that devsup did not start; ``details["holder"]`` says which."""

    code, exit_code, retryable = "unmanaged_running", 4, True


class ExitedEarly(DevsupError):
    """The server ended before it was ready; ``details``: exit_code, signal, log_tail, cause."""

    code, exit_code = "exited_early", 5


class StoppedMeanwhile(DevsupError):
    """Somebody stopped the server while this call waited for it."""

    code, exit_code = "stopped_meanwhile", 5


class NotReady(DevsupError):
    """The deadline passed before the server was ready; it goes on starting."""

    code, exit_code, retryable = "not_ready", 6, True


class LockTimeout(DevsupError):
    """A lock was not free in time; ``details["holder"]`` and ``details["age_ms"]`` say who has it."""

    code, exit_code, retryable = "lock_timeout", 7, True


class LockOrderError(DevsupError):
    """A lock was asked for out of order, a bug of the caller; `held` and `asked` in ``details`` name both."""


class Busy(DevsupError):
    """Another operation on this server did not end in time."""

    code, exit_code, retryable = "busy", 7, True


class LockLost(Busy):
    """
    A lock was lost while it was held: somebody else may have had it too.

    The file of one between processes was replaced; one between hosts could not be renewed within its ttl.
    """


class Survivors(DevsupError):
    """Processes outlived SIGKILL."""

    code, exit_code, retryable = "survivors", 8, True


class PortHeld(DevsupError):
    """Everything has ended, yet the port is not free."""

    code, exit_code, retryable = "port_held", 8, True


class ConfigInvalid(DevsupError):
    """A project file (package.json, devsup.toml) cannot be used as it is."""

    code, exit_code = "config_invalid", 9


class MissingExecutable(DevsupError):
    """The command's program is not there."""

    code, exit_code = "missing_executable", 9


class MissingDependencies(DevsupError):
    """The app's packages are not installed."""

    code, exit_code = "missing_dependencies", 9


class UnsupportedPlatform(DevsupError):
    """Devsup cannot run on this system."""

    code, exit_code = "unsupported_platform", 9


class LimitReached(DevsupError):
    """As many servers run as are allowed."""

    code, exit_code, retryable = "limit_reached", 10, True


class PoolExhausted(LimitReached):
    """Every item of a pool is held; ``details["free_at"]`` says when the next lease is over."""


class RegistryUnusable(DevsupError):
    """The state folder or its registry cannot be used; nothing was changed."""

    code, exit_code = "registry_unusable", 11


class NotOurs(DevsupError):
    """The process was not started by devsup, so it is not signalled."""

    code, exit_code = "not_ours", 12


class NotOwner(NotOurs):
    """The lease of an item is over, or was never the caller's; ``details["owner"]`` has the item now."""


class OtherOwner(DevsupError):
    """The server belongs to another owner, whom ``details["owner"]`` names."""

    code, exit_code = "other_owner", 12


class NameTaken(DevsupError):
    """The name or folder belongs to a running server with another command."""

    code, exit_code = "name_taken", 12


class InsideItself(DevsupError):
    """The call came from inside the very server it asks for."""

    code, exit_code = "inside_itself", 12


class FleetUnreachable(DevsupError):
    """Redis cannot be asked, or refuses; nothing that needs it was done."""

    code, exit_code, retryable = "fleet_unreachable", 13, True


class LeaseHeldElsewhere(DevsupError):
    """Another host runs the app that only one may run; ``details``: host, owner, url, fencing."""

    code, exit_code, retryable = "lease_held_elsewhere", 13, True


class Unhealthy(DevsupError):
    """What was looked at is not well; the answer beside it says how."""

    code, exit_code = "unhealthy", 14


class Interrupted(DevsupError):
    """Ctrl-C."""

    code, exit_code, retryable = "interrupted", 130, True


class Terminated(DevsupError):
    """SIGTERM."""

    code, exit_code, retryable = "terminated", 143, True

"""
Starts, tracks and stops development servers.

The layers, drawn once. An arrow means "may import"; nothing imports upwards, and a test checks it::

    demo -> __main__ -> cli -> aio -> supervisor -> doctor -> apps -> config -> logs -> guard -> pool
        -> fleet -> registry -> readiness -> shutdown -> tree -> ports -> locks -> identity -> bounds
        -> logtimes -> redis -> system -> paths -> masking -> trace -> durations -> timers -> clock
        -> owners -> models -> errors -> smallfile -> filenames -> compactjson -> records

`cli` reads flags and shows answers; `supervisor` decides; `guard` is a process of its own, one per server.
The public names below are loaded when they are first asked for, so that `import devsup` costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup import aio
    from devsup.errors import (
        Ambiguous,
        Busy,
        ConfigInvalid,
        DevsupError,
        ExitedEarly,
        FleetUnreachable,
        InsideItself,
        InternalError,
        Interrupted,
        LeaseHeldElsewhere,
        LimitReached,
        LockLost,
        LockOrderError,
        LockTimeout,
        MissingDependencies,
        MissingExecutable,
        NameTaken,
        NotFound,
        NotOurs,
        NotOwner,
        NotReady,
        OtherOwner,
        PoolExhausted,
        PortHeld,
        PortTaken,
        RegistryUnusable,
        StoppedMeanwhile,
        Survivors,
        Terminated,
        Unhealthy,
        UnmanagedRunning,
        UnsupportedPlatform,
        UsageError,
    )
    from devsup.models import (
        CheckResult,
        ConfigResult,
        EventPage,
        Finding,
        FleetServer,
        Health,
        HealthFinding,
        HealthPart,
        HistoryEntry,
        HostList,
        HostSeen,
        InitResult,
        LockList,
        LockStatus,
        LogPage,
        Member,
        Metrics,
        MonitorRound,
        Outcome,
        PoolList,
        PoolStatus,
        PortList,
        PortUse,
        Pruned,
        PruneResult,
        Server,
        ServerList,
        StartResult,
        State,
        StatusResult,
        StopResult,
        StopResults,
        Story,
        StoryEntry,
        Unmanaged,
        UpResult,
        UpResults,
    )
    from devsup.supervisor import Supervisor

__all__ = [
    "Ambiguous",
    "Busy",
    "CheckResult",
    "ConfigInvalid",
    "ConfigResult",
    "DevsupError",
    "EventPage",
    "ExitedEarly",
    "Finding",
    "FleetServer",
    "FleetUnreachable",
    "Health",
    "HealthFinding",
    "HealthPart",
    "HistoryEntry",
    "HostList",
    "HostSeen",
    "InitResult",
    "InsideItself",
    "InternalError",
    "Interrupted",
    "LeaseHeldElsewhere",
    "LimitReached",
    "LockList",
    "LockLost",
    "LockOrderError",
    "LockStatus",
    "LockTimeout",
    "LogPage",
    "Member",
    "Metrics",
    "MissingDependencies",
    "MissingExecutable",
    "MonitorRound",
    "NameTaken",
    "NotFound",
    "NotOurs",
    "NotOwner",
    "NotReady",
    "OtherOwner",
    "Outcome",
    "PoolExhausted",
    "PoolList",
    "PoolStatus",
    "PortHeld",
    "PortList",
    "PortTaken",
    "PortUse",
    "PruneResult",
    "Pruned",
    "RegistryUnusable",
    "Server",
    "ServerList",
    "StartResult",
    "State",
    "StatusResult",
    "StopResult",
    "StopResults",
    "StoppedMeanwhile",
    "Story",
    "StoryEntry",
    "Supervisor",
    "Survivors",
    "Terminated",
    "Unhealthy",
    "Unmanaged",
    "UnmanagedRunning",
    "UnsupportedPlatform",
    "UpResult",
    "UpResults",
    "UsageError",
    "__version__",
    "aio",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `devsup` has no `{name}`")
    from importlib import import_module

    if name == "aio":
        return import_module("devsup.aio")
    for module in ("errors", "models", "supervisor"):
        home = import_module(f"devsup.{module}")
        if name in home.__all__:
            return getattr(home, name)
    raise AssertionError(f"no module of devsup gives `{name}`")


def __dir__() -> list[str]:
    return __all__

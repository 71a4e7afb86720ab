"""
What went wrong, out of what a server has printed: a few records instead of a few screens.

Each tool has a module that knows how it prints an error (`TOOLS`). It is a pure function of lines: one says
where an error begins and how far it goes, one makes a `Fault` of it. Every server's log is read with all of
them, since one command may run several (a Next.js app and its API, say).

Loaded by those who ask for errors only; nothing is kept between two calls.
"""

from __future__ import annotations

from devsup.logs.errors.collect import Collector, collect
from devsup.logs.errors.fault import Fault

__all__ = ["Collector", "Fault", "collect"]

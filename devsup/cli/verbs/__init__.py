"""
The verbs beyond those of the hot lane: one module each, named like the verb, loaded when it is called.

A module has

``handle(supervisor, options, progress)``
    does it, and returns what to show and an error beside it or None (as in `devsup.cli.handlers`)
``lines(data)``
    the same as plain text: one line per thing, aligned, stable
``drawn(data)``, where a terminal deserves more
    what Rich draws instead
``waits(options)``, where it takes its time
    what a person is told meanwhile
``follows(options)`` and ``pages(supervisor, options, rest)``, where it may give more than one answer
    whether it does, and one `data` after another; ``rest(seconds)`` waits, and ends it where nobody reads any
    more

Its signature stands in `devsup.cli.commands`, the shape of its data in `devsup/schemas`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["drawn", "module"]


def module(verb: str) -> Any:
    """Return the module of ``verb``."""
    name = f"devsup.cli.verbs.{verb.replace('-', '_')}"
    __import__(name)  # importlib's own function costs the hot lane its package
    return sys.modules[name]


def drawn(verb: str) -> Any:
    """Return how a terminal shows the data of ``verb``; None where plain lines are as good."""
    try:
        return getattr(module(verb), "drawn", None)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(__name__):
            raise
        return None  # a verb of the hot lane

"""The store of one machine: the registry of a state folder."""

from __future__ import annotations

import os

from devsup.paths import Home, find_home
from devsup.registry.lending import Lending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.pool._core import Answer, Request

__all__ = ["SqliteStore", "names", "state_folder"]


def state_folder(home: str | None) -> Home:
    """Return the state folder that ``home`` names, or else the environment."""
    return find_home() if home is None else find_home({"DEVSUP_HOME": os.fspath(home)})


def names(home: str | None) -> list[str]:
    """Return the names of all pools of a state folder."""
    lending = Lending(state_folder(home))
    try:
        return [*lending.names()[1:]]
    finally:
        lending.close()


class SqliteStore:
    """One pool of a state folder; any number of threads and processes may use it at once."""

    def __init__(self, name: str, home: str | None) -> None:
        self.name = name
        self._lending = Lending(state_folder(home))

    def call(self, request: Request) -> Answer:
        """Do what is asked for, in one transaction."""
        operation, arguments = request
        if operation in ("acquire", "release"):
            arguments = arguments[:-1]  # the name of the call: no answer of a transaction is lost
        answer: Answer = getattr(self._lending, operation)(self.name, *arguments)
        return answer

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._lending.close()

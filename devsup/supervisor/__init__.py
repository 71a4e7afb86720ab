"""
The use cases: start, stop, restart, list, status, logs, wait, cleanup.

* ``core``     the `Supervisor`, one method a use case; ``looking`` those that change nothing
* ``start``    get or create one server, however many ask
* ``stop``     end servers and say what was seen
* ``ready``    how a start comes out
* ``targets``  what a caller means by a name, a pid, a port
* ``view``     what is true of a row now
* ``waiting``  waiting on the registry at next to no cost
"""

from __future__ import annotations

from devsup.supervisor.core import Supervisor

__all__ = ["Supervisor"]

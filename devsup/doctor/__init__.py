"""
What is wrong here, part by part, and the command that mends it.

A part is a module: a function ``look(scene)`` gives what it has found, or None where there is nothing to look
at; ``KINDS`` are the beginnings of the ids that it may give. `scene` is what a look gets to see: the
supervisor makes it. `examining` looks at all parts at once and mends what may be mended.

A part only looks. It may be called from any thread, beside the other parts, while servers start and stop:
what looks wrong for a moment only (a row just before its process) is looked at twice.
"""

from __future__ import annotations

from devsup.doctor.examining import CHEAP, PARTS, Examined, examine, health, mend
from devsup.doctor.scene import BAD, WARN, Scene, Seen

__all__ = ["BAD", "CHEAP", "PARTS", "WARN", "Examined", "Scene", "Seen", "examine", "health", "mend"]

"""
Locks between processes on this machine.

A lock is a file that is never unlinked (a waiter may hold the old inode) and a `flock` on it, which the
kernel frees when its holder dies. It is never taken away by age.
"""

from __future__ import annotations

from devsup.locks._file import FileLock, Held

__all__ = ["FileLock", "Held"]

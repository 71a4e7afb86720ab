"""Anything else: any command, any script, any port or none."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(name="command", programs={}, port_env="PORT")

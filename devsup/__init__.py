"""Starts, tracks and stops development servers."""

__version__ = "0.1.0"

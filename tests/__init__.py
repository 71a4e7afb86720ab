"""Tests: real processes, real sockets, real files."""

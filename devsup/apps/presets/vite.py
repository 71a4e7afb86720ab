"""Vite: `vite`, port 5173; also what the kinds that are built on it share."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["FAILURES", "KIND", "STRICT", "VALUE_FLAGS"]

#: Without it Vite moves on to the next free port.
STRICT = ("--strictPort",)

VALUE_FLAGS = frozenset(
    ("-c", "--config", "--base", "-l", "--logLevel", "-d", "--debug", "-f", "--filter", "-m", "--mode")
)

#: What Vite says, whoever started it.
FAILURES: tuple[tuple[str, str], ...] = (
    (r"Error: Port \d+ is already in use", "the port is already in use"),
    (r"failed to load config from ", "vite.config fails to load"),
    (r"error when starting dev server:", "Vite could not start its server"),
    (
        r"You are using Node\.js [\d.]+\. Vite requires Node\.js version",
        "this version of Node.js is too old for this Vite",
    ),
)

KIND = Kind(
    name="vite",
    role="web",
    yields=True,
    programs={"vite": ("", "dev", "serve")},
    dependencies=("vite",),
    marks=("index.html",),
    value_flags=VALUE_FLAGS,
    takes_folder=True,
    default_port=5173,
    port_flags=("--port",),
    port_by_flag=True,
    host_flags=("--host",),
    strict=STRICT,
    http=("/@vite/client",),
    failures=FAILURES,
)

"""Astro: `astro dev`, port 4321. It has no option to stay on a port that was taken meanwhile."""

from __future__ import annotations

from devsup.apps.presets import vite
from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="astro",
    role="web",
    yields=True,
    programs={"astro": ("dev",)},
    dependencies=("astro",),
    marks=("src/pages",),
    default_port=4321,
    port_flags=("--port",),
    port_by_flag=True,
    port_once=True,
    host_flags=("--host",),
    http=("/@vite/client",),
    failures=(
        (r"astro\.config\.[cm]?[jt]s:\d", "astro.config fails to load"),
        (r"Unable to load your Astro config|\[config\] Astro found issue", "astro.config cannot be used"),
        (r"Node\.js v?[\d.]+ is not supported by Astro", "this version of Node.js is too old for this Astro"),
        *vite.FAILURES,
    ),
)

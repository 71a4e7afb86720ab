"""React Router 7 and Remix 2: `react-router dev`, `remix vite:dev`, port 5173."""

from __future__ import annotations

from devsup.apps.presets import vite
from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="react-router",
    role="web",
    yields=True,
    programs={"react-router": ("dev",), "remix": ("vite:dev",)},
    dependencies=("@react-router/dev", "@remix-run/dev"),
    marks=("app/root.tsx", "app/root.jsx"),
    value_flags=vite.VALUE_FLAGS,
    takes_folder=True,
    default_port=5173,
    port_flags=("--port",),
    port_by_flag=True,
    host_flags=("--host",),
    strict=vite.STRICT,
    http=("/@vite/client",),
    failures=(
        (
            r"Could not find a root route module|Missing \"root\" route file",
            "there is no `app/root` module",
        ),
        (r"Route config .* is invalid|Route config file not found", "app/routes cannot be used"),
        *vite.FAILURES,
    ),
)

"""FastAPI by its own command: `fastapi dev`, port 8000."""

from __future__ import annotations

from devsup.apps.presets import uvicorn
from devsup.apps.presets.kind import PYTHON_ENV, Kind

__all__ = ["KIND"]

KIND = Kind(
    name="fastapi",
    role="api",
    programs={"fastapi": ("dev",)},
    python=True,
    # Where `fastapi dev` itself looks.
    entries=("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py"),
    constructors=("FastAPI(",),
    dependencies=("fastapi[standard]", "fastapi-cli"),
    default_port=8000,
    port_flags=("--port",),
    port_by_flag=True,
    host_flags=("--host",),
    set_env=PYTHON_ENV,
    http=("/favicon.ico",),
    failures=(
        (
            r"please install \"fastapi\[standard\]\"",
            "`fastapi[standard]`, which has this command, is not installed",
        ),
        (
            r"Could not find FastAPI app|Could not find a default file",
            "no FastAPI app is where it is looked for",
        ),
        *uvicorn.FAILURES,
    ),
)

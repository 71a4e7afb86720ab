"""Uvicorn, whatever it serves: `uvicorn main:app`, port 8000."""

from __future__ import annotations

from devsup.apps.presets.kind import PYTHON_ENV, PYTHON_FAILURES, Kind

__all__ = ["FAILURES", "KIND"]

#: What uvicorn says, whoever started it.
FAILURES: tuple[tuple[str, str], ...] = (
    (r"\[Errno (?:98|48)\] .*[Aa]ddress already in use", "the port is already in use"),
    (r"Error loading ASGI app", "the app cannot be loaded from where the command says"),
    (r"Application startup failed", "the app failed in its own start-up"),
    *PYTHON_FAILURES,
)

KIND = Kind(
    name="uvicorn",
    role="api",
    programs={"uvicorn": (":",)},
    run=("uvicorn", "{entry}", "--reload"),
    python=True,
    entries=("main.py", "app.py", "asgi.py", "app/main.py"),
    constructors=("FastAPI(", "Starlette(", "Litestar(", "Quart("),
    dependencies=("uvicorn",),
    default_port=8000,
    port_flags=("--port",),
    port_by_flag=True,
    host_flags=("--host",),
    set_env=PYTHON_ENV,
    http=("/favicon.ico",),
    failures=FAILURES,
)

"""Flask: `flask run`, port 5000."""

from __future__ import annotations

from devsup.apps.presets.kind import PYTHON_ENV, PYTHON_FAILURES, Kind

__all__ = ["KIND"]

KIND = Kind(
    name="flask",
    role="api",
    programs={"flask": ("run",)},
    run=("flask", "run", "--debug"),
    python=True,
    entries=("wsgi.py", "app.py"),
    constructors=("Flask(", "create_app(", "make_app("),
    dependencies=("flask",),
    default_port=5000,
    port_flags=("--port", "-p"),
    port_by_flag=True,
    host_flags=("--host", "-h"),
    set_env=PYTHON_ENV,
    http=("/favicon.ico",),
    failures=(
        (r"Port \d+ is in use by another program", "the port is already in use"),
        (
            r"Could not locate a Flask application|Failed to find Flask application",
            "no Flask app is where it is looked for (`--app`, FLASK_APP)",
        ),
        *PYTHON_FAILURES,
        (r"Error: While importing '", "the module of the app cannot be imported"),
    ),
)

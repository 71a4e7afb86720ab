"""Django: `python manage.py runserver`, port 8000."""

from __future__ import annotations

from devsup.apps.presets.kind import PYTHON_ENV, PYTHON_FAILURES, Kind

__all__ = ["KIND"]

KIND = Kind(
    name="django",
    role="api",
    programs={"manage.py": ("runserver",), "django-admin": ("runserver",), "django": ("runserver",)},
    python=True,
    entries=("manage.py",),
    dependencies=("django",),
    value_flags=frozenset(("--settings", "--pythonpath", "-v", "--verbosity")),
    default_port=8000,
    port_is_argument=True,
    port_once=True,
    set_env=PYTHON_ENV,
    http=("/favicon.ico",),
    failures=(
        (r"Error: That port is already in use", "the port is already in use"),
        (r"ImproperlyConfigured", "the settings of Django cannot be used"),
        (r"SystemCheckError: System check identified", "the checks of Django found errors"),
        (r"CommandError: You must set settings\.ALLOWED_HOSTS", "ALLOWED_HOSTS is empty while DEBUG is off"),
        *PYTHON_FAILURES,
    ),
)

"""Expo: `expo start`, port 8081."""

from __future__ import annotations

from devsup.apps.presets import metro
from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="expo",
    role="mobile",
    programs={"expo": ("start",), "expo-cli": ("start",)},
    default_port=8081,
    port_env="RCT_METRO_PORT",
    port_flags=("--port", "-p"),
    port_by_flag=True,
    value_flags=frozenset(("-m", "--host", "--max-workers", "--scheme", "--private-key-path")),
    takes_folder=True,
    exclusive_folder=True,
    custom_scripts=True,
    unset_env=("CI",),
    dependencies=("expo",),
    marks=("app.json", "app.config.js", "app.config.ts"),
    scripts=("start", "dev"),
    http=("/status",),
    body="packager-status:running",
    root_header="X-React-Native-Project-Root",
    failures=(
        (
            r"Skipping dev server|Input is required, but .* is in non-interactive mode",
            "the port is already in use",
        ),
        (r"Port NaN is being used", "the port is no number"),
        (r"GetEnv\.NoBoolean", "a variable of the environment (`CI`, `EXPO_...`) is neither true nor false"),
        (r"JsonFileError: ", "app.json is not valid JSON"),
        (r"ConfigError: ", "the app's config (app.json, app.config) cannot be used"),
        (r"unknown or unexpected option", "the command has an option that its program does not know"),
        *metro.FAILURES,
    ),
)

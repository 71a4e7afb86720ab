"""webpack-dev-server: `webpack serve`, port 8080."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="webpack",
    role="web",
    yields=True,
    programs={"webpack": ("serve", "server", "s"), "webpack-dev-server": ("",)},
    dependencies=("webpack-dev-server",),
    marks=("webpack.config.js", "webpack.config.cjs", "webpack.config.mjs", "webpack.config.ts"),
    scripts=("start", "dev", "serve"),
    default_port=8080,
    port_flags=("--port",),
    port_by_flag=True,
    host_flags=("--host",),
    http=("/webpack-dev-server",),
    failures=(
        (r"\[webpack-cli\] Failed to load .*config", "webpack.config fails to load"),
        (
            r"Invalid configuration object|Invalid options object",
            "webpack.config has an option that is not known",
        ),
        (
            r"\[webpack-cli\] Error: Unknown (?:command|option)",
            "the command has an option that its program does not know",
        ),
    ),
)

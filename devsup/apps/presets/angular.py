"""Angular: `ng serve`, port 4200. Its port opens only when the first build is done."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="angular",
    role="web",
    yields=True,
    programs={"ng": ("serve", "s", "dev")},
    dependencies=("@angular/cli",),
    marks=("angular.json",),
    scripts=("start", "dev"),
    default_port=4200,
    port_flags=("--port",),
    port_by_flag=True,
    host_flags=("--host",),
    http=("/@vite/client",),
    failures=(
        (r"Port \d+ is already in use", "the port is already in use"),
        (
            r"is not available when running the Angular CLI outside a workspace",
            "there is no angular.json",
        ),
        (r"Workspace config file cannot be loaded", "angular.json cannot be used"),
        (r"Schema validation failed", "angular.json has an option that its builder does not know"),
        (r"Could not find the '[^']+' builder", "a builder that angular.json names is not installed"),
        (
            r"Application bundle generation failed",
            "the app cannot be built: its port opens when that is corrected",
        ),
        (r"Node\.js version v[\d.]+ detected", "this version of Node.js is too old for this Angular"),
    ),
)

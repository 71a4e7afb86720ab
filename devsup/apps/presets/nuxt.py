"""Nuxt: `nuxt dev`, port 3000. Until it is built it answers every request with a page that says so."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="nuxt",
    role="web",
    yields=True,
    programs={"nuxt": ("dev",), "nuxi": ("dev",)},
    dependencies=("nuxt",),
    marks=("nuxt.config.ts", "nuxt.config.js", "nuxt.config.mjs", "app/app.vue", "app.vue"),
    takes_folder=True,
    exclusive_folder=True,
    default_port=3000,
    port_env="PORT",
    port_flags=("--port", "-p"),
    port_by_flag=True,
    host_flags=("--host",),
    http=("/_nuxt/builds/latest.json",),
    unready=(503,),
    failures=(
        (r"nuxt\.config\.[cm]?[jt]s:\d", "nuxt.config fails to load"),
        (r"Error while parsing .*nuxt\.config", "nuxt.config fails to load"),
        (r"Cannot resolve module .nuxt|Cannot find any nuxt version", "Nuxt is not installed"),
    ),
)

"""SvelteKit: `vite dev` in a package that depends on it, port 5173."""

from __future__ import annotations

from devsup.apps.presets import vite

__all__ = ["KIND"]

KIND = vite.KIND.replace(
    name="sveltekit",
    refines="vite",
    dependencies=("@sveltejs/kit",),
    marks=("src/routes",),
    failures=(
        (r"svelte\.config\.js(?:\?ts=\d+)?:\d", "svelte.config.js fails to load"),
        *vite.FAILURES,
    ),
)

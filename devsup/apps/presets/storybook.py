"""Storybook: `storybook dev`, port 6006, mostly beside the app whose parts it shows."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["KIND"]

KIND = Kind(
    name="storybook",
    role="storybook",
    companion=True,
    programs={"storybook": ("dev",), "sb": ("dev",), "start-storybook": ("",)},
    dependencies=("storybook",),
    marks=(".storybook",),
    scripts=("storybook", "dev", "start"),
    default_port=6006,
    port_flags=("--port", "-p"),
    port_by_flag=True,
    host_flags=("--host", "-h"),
    strict=("--exact-port",),
    http=("/index.json",),
    failures=(
        (r"Port \d+ (?:is )?(?:already in use|is not available)", "the port is already in use"),
        (
            r"No configuration files have been found|SB_CORE-SERVER_0006|MainFileMissing",
            "there is no `.storybook/main`",
        ),
        (r"MainFileEvaluationError|SB_CORE-SERVER_0007", ".storybook/main fails to load"),
        (
            r"CriticalPresetLoadError|SB_CORE-SERVER_0002",
            "an addon or the framework that .storybook/main names cannot be loaded",
        ),
    ),
)

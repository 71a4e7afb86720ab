"""Metro without Expo: `react-native start`, `metro serve`, port 8081."""

from __future__ import annotations

from devsup.apps.presets.kind import Kind

__all__ = ["FAILURES", "KIND"]

#: What Metro says, whoever started it.
FAILURES: tuple[tuple[str, str], ...] = (
    (r"at .*metro\.config\.[cm]?[jt]s:\d", "metro.config fails to load"),
    (r"depends on .*@react-native-community/cli", "`@react-native-community/cli` is not installed"),
    (r"listen EADDRINUSE", "the port is already in use"),
)

KIND = Kind(
    name="metro",
    role="mobile",
    programs={"react-native": ("start",), "metro": ("serve", "start")},
    default_port=8081,
    port_env="RCT_METRO_PORT",
    port_flags=("--port", "-p"),
    host_flags=("--host",),
    port_by_flag=True,
    value_flags=frozenset(("--host", "--config", "-c", "--projectRoot", "--max-workers", "--watchFolders")),
    takes_folder=True,
    exclusive_folder=True,
    custom_scripts=True,
    unset_env=("CI",),
    dependencies=("react-native",),
    marks=("metro.config.js", "metro.config.cjs", "metro.config.ts"),
    scripts=("start", "dev"),
    http=("/status",),
    body="packager-status:running",
    root_header="X-React-Native-Project-Root",
    failures=FAILURES,
)

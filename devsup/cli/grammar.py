"""
The verbs and flags that the hot lane understands.

Generated from `devsup/cli/commands` by `python -m devsup.cli.generate`; a test checks it. Constants.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ALIASES", "GLOBALS", "VERBS"]

#: Other names of verbs.
ALIASES: dict[str, str] = {
    "ls": "list",
    "ps": "list",
}

#: Options that are allowed before the verb: their target, kind, and value if a flag.
GLOBALS: dict[str, Any] = {
    "--json": ("json", "flag", True),
    "-C": ("directory", "text", True),
    "--directory": ("directory", "text", True),
    "-v": ("verbose", "flag", True),
    "--verbose": ("verbose", "flag", True),
    "--version": ("version", "flag", True),
}

#: Per verb: options, arguments (name, required, many), what takes the rest after `--`, defaults.
VERBS: dict[str, Any] = {
    "adopt": (
        {
            "--name": ("name", "text", True),
            "--owner": ("owner", "text", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("target", True, False),),
        None,
        {
            "target": None,
            "name": None,
            "owner": None,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "start": (
        {
            "--port": ("port", "text", True),
            "--timeout": ("timeout", "float", True),
            "--no-wait": ("no_wait", "flag", True),
            "--env": ("env", "texts", True),
            "--restart": ("restart", "text", True),
            "--idle-timeout": ("idle_timeout", "text", True),
            "--ttl": ("ttl", "text", True),
            "--with-parent": ("with_parent", "int", True),
            "--owner": ("owner", "text", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("app", False, False),),
        "command",
        {
            "app": None,
            "command": None,
            "port": None,
            "timeout": None,
            "no_wait": False,
            "env": None,
            "restart": None,
            "idle_timeout": None,
            "ttl": None,
            "with_parent": None,
            "owner": None,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "stop": (
        {
            "--all": ("all", "flag", True),
            "--grace": ("grace", "float", True),
            "--sweep": ("sweep", "flag", True),
            "--everywhere": ("everywhere", "flag", True),
            "--owner": ("owner", "text", True),
            "--take-over": ("take_over", "flag", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("targets", False, True),),
        None,
        {
            "targets": None,
            "all": False,
            "grace": 5.0,
            "sweep": False,
            "everywhere": False,
            "owner": None,
            "take_over": False,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "list": (
        {
            "-a": ("all", "flag", True),
            "--all": ("all", "flag", True),
            "--everywhere": ("everywhere", "flag", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (),
        None,
        {
            "all": False,
            "everywhere": False,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "status": (
        {
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("target", True, False),),
        None,
        {
            "target": None,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "logs": (
        {
            "-n": ("lines", "int", True),
            "--lines": ("lines", "int", True),
            "-f": ("follow", "flag", True),
            "--follow": ("follow", "flag", True),
            "--after": ("after", "text", True),
            "--max-bytes": ("max_bytes", "int", True),
            "--wait": ("wait", "float", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("target", True, False),),
        None,
        {
            "target": None,
            "lines": None,
            "follow": False,
            "after": None,
            "max_bytes": None,
            "wait": None,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "url": (
        {
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("target", True, False),),
        None,
        {
            "target": None,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "wait": (
        {
            "--gone": ("gone", "flag", True),
            "--ready": ("gone", "flag", False),
            "--timeout": ("timeout", "float", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("target", True, False),),
        None,
        {
            "target": None,
            "gone": False,
            "timeout": 45.0,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "restart": (
        {
            "--timeout": ("timeout", "float", True),
            "--grace": ("grace", "float", True),
            "--take-over": ("take_over", "flag", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("target", True, False),),
        None,
        {
            "target": None,
            "timeout": 45.0,
            "grace": 5.0,
            "take_over": False,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "version": (
        {
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (),
        None,
        {
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "schema": (
        {
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (("command", False, False),),
        None,
        {
            "command": None,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "mcp": (
        {
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (),
        None,
        {
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "agent-guide": (
        {
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (),
        None,
        {
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
    "top": (
        {
            "--everywhere": ("everywhere", "flag", True),
            "--interval": ("interval", "float", True),
            "--json": ("json", "flag", True),
            "-C": ("directory", "text", True),
            "--directory": ("directory", "text", True),
            "-v": ("verbose", "flag", True),
            "--verbose": ("verbose", "flag", True),
        },
        (),
        None,
        {
            "everywhere": False,
            "interval": 2.0,
            "json": False,
            "directory": None,
            "verbose": False,
        },
    ),
}

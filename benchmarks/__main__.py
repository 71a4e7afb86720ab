"""
Run the benchmarks: ``python -m benchmarks [--json] [--rounds N] [NAME ...]``.

The names are ``commands``, ``fleet``, ``lifecycle``, ``guards``, ``growth``, ``locks``, ``pool``,
``real`` and ``registry``; all of them by default.
The exit status says whether every budget was kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import cast

from rich.console import Console
from rich.table import Table

from benchmarks import commands, fleet, growth, guards, lifecycle, locks, pools, real, registry
from benchmarks.measure import Figure, Installed, installed

PARTS: dict[str, Callable[[Installed, int], list[Figure]]] = {
    "commands": commands.run,
    "fleet": fleet.run,
    "lifecycle": lifecycle.run,
    "guards": guards.run,
    "growth": growth.run,
    "locks": locks.run,
    "pool": pools.run,
    "real": real.run,
    "registry": lambda _copy, _rounds: cast("list[Figure]", registry.run()),
}


def main() -> int:
    """Run what is asked for and show it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds of each figure")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    names = options.names or list(PARTS)
    figures: list[Figure] = []
    with installed() as copy:
        for name in names:
            print(f"{name} ...", file=sys.stderr)
            figures += PARTS[name](copy, options.rounds)
    print(json.dumps(figures, indent=2)) if options.json else show(figures)
    return 0 if all(one["ok"] for one in figures) else 1


def show(figures: list[Figure]) -> None:
    """Print the figures as a table."""
    table = Table("what", "measured", "reference", "ratio", "budget", "kept")
    for one in figures:
        reference = "" if one["reference"] is None else f"{one['reference']:.1f} {one['unit']}"
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        kept = "yes" if one["ok"] else "NO"
        table.add_row(
            one["name"], f"{one['value']:,.1f} {one['unit']}", reference, ratio, one["budget"], kept
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

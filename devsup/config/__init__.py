"""
What a project says about its apps: in `devsup.toml`, pyproject.toml (`[tool.devsup]`) or package.json.

* ``files``   which of the three it is, and the state of each
* ``cache``   the checked configuration as JSON, so that nobody pays for the check twice
* ``check``   reads and checks a file: loads tomllib and pydantic, and only for a file that has changed
* ``model``   the shape of a file, by pydantic; ``lines`` where each key stands
* ``values``  what a single value may be; ``dotenv`` reads an `env_file`

Only reads, but for the cache: a file that several callers may write at once and that none has to trust.
"""

from __future__ import annotations

from devsup.config.files import Config, invalid, load

__all__ = ["Config", "invalid", "load"]

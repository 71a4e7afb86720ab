"""The examples of the page about locks run as they stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support import ROOT, Spawn

if TYPE_CHECKING:
    from tests.redis_support import RedisServer


def test_the_examples_run(spawn: Spawn, shared_redis: RedisServer) -> None:
    text = (ROOT / "docs" / "locks.md").read_text()
    here, between = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for example, printed in ((here, "published\n"), (between, "published api\npublished web\n")):
        child = spawn(example, env={"REDIS_URL": shared_redis.url})
        out, err = child.communicate(timeout=40)
        assert (out, err, child.returncode) == (printed, "", 0)

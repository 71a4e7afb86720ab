"""The example of the page about locks runs as it stands."""

from __future__ import annotations

import re

from tests.support import ROOT, Spawn


def test_the_example_runs(spawn: Spawn) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "locks.md").read_text(), re.DOTALL)
    child = spawn(example)
    out, err = child.communicate(timeout=40)
    assert (out, err, child.returncode) == ("published\n", "", 0)

"""What the documentation shows is right: each example is accepted, and no key is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devsup.apps import configured
from devsup.apps.presets import KINDS
from devsup.config import model
from tests.apps_layouts import lay
from tests.support import ROOT

DOCUMENT = (ROOT / "docs/configuration.md").read_text()
EXAMPLES = [
    (name or "devsup.toml", text)
    for source in (DOCUMENT, (ROOT / "README.md").read_text())
    for name, text in re.findall(r"^```(?:toml|json) ?(\S*)\n(.*?)^```", source, re.DOTALL | re.MULTILINE)
    if name or "schema_version" not in text
]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[str(number) for number in range(len(EXAMPLES))])
def test_each_example_is_accepted(temporary: Path, name: str, text: str) -> None:
    config = configured.load(str(lay(temporary, {name: text})))
    assert config is not None
    assert config.apps


def test_every_variable_that_is_read_is_in_the_table() -> None:
    """But for those by which devsup speaks to itself, and those for tests."""
    text = "".join(path.read_text() for path in (ROOT / "devsup").rglob("*.py"))
    inner = {"DEVSUP_MARKER", "DEVSUP_GUARD_FLEET", "DEVSUP_SYSTEM", "DEVSUP_WITHOUT"}
    read = set(re.findall(r"[\"'](DEVSUP_[A-Z_]*[A-Z])[\"']", text)) - inner
    assert {"DEVSUP_HOME", "DEVSUP_MAX_SERVERS", "DEVSUP_FLEET"} < read
    assert read - set(re.findall(r"`(DEVSUP_\w+)`", DOCUMENT)) == set()


def test_every_key_and_kind_is_in_the_table() -> None:
    assert len(EXAMPLES) >= 7
    keys = {*model.App.model_fields, *model.File.model_fields}
    assert keys <= set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    for table in (model.Ready, model.Stop, model.Health, model.Fleet):
        for key in table.model_fields:
            assert re.search(rf"\b{key} = ", DOCUMENT), key
    assert set(KINDS) <= set(re.findall(r"`([\w-]+)`", DOCUMENT))
    for key in configured.ENVIRONMENT:
        assert f"_{key.upper()}`" in DOCUMENT

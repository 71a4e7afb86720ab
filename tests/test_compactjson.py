"""Is it the JSON that `json` writes and reads?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsup import compactjson, filenames
from devsup.tree import MARKER, parse

#: Text with lone surrogates, as file names that are no UTF-8 have them, and with control characters.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_what_json_would_write(value: Any) -> None:
    for ascii_only in (True, False):
        text = compactjson.dumps(value, ascii_only=ascii_only)
        assert text == json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
        assert compactjson.loads(text) == json.loads(text)
    assert compactjson.loads(json.dumps(value, indent=2)) == json.loads(json.dumps(value, indent=2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        "1 2",
        "nul",
        '"\x01"',
        '"\\ud8"',
        "\ufeff{}",
        "{1:2}",
        "\x0b1",
        "01",
        "[" * 99_999,
    ],
)
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compactjson.loads(text)


@pytest.mark.parametrize("depth", [900, 50_000])
@pytest.mark.parametrize("same", [True, False], ids=["UTF-8", "another locale"])
def test_a_marker_that_is_nested_without_end_is_somebody_else_s(
    depth: int, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any process of the user may carry it; each start and stop looks at all of them."""
    monkeypatch.setattr(filenames, "SAME", same)
    assert parse(f"{MARKER}={'[' * depth}{']' * depth}".encode()) is None

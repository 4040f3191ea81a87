"""JSON is read as its standard has it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.storage import strict_json

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_plain_data_reads_back(content):
    text = json.dumps(content)
    assert strict_json.loads(text) == strict_json.loads(text.encode()) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "the number NaN"),
        ('{"a": [1, -Infinity]}', "the number -Infinity"),
        ("[1e999]", "the number 1e999, which no float can hold"),
        ("-1e999", "the number -1e999"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' twice"),
        ('[{"x": {"": 1, "": 2}}]', "the key '' twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ("1 2", "Extra data"),
        (b"\xff", "codec can't decode"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text, message):
    with pytest.raises(ValueError, match=message):
        strict_json.loads(text)

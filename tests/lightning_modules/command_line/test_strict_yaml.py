from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.command_line.strict_yaml import MAX_DEPTH, MAX_NODES, RefusedYAML, check, load_texts

NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))


@settings(max_examples=60)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_a_program_saved_is_accepted(value):
    check(yaml.safe_dump(value, allow_unicode=True), where="saved")


def aliased(num_items: int, num_aliases: int) -> str:
    return f"a: &a [{', '.join('x' * num_items)}]\nb: [{', '.join(['*a'] * num_aliases)}]\n"


def test_values_are_counted_as_if_aliases_were_written_out():
    # Mapping, two keys, list a of 99 items, list b of num aliases of 100 values each.
    below = (MAX_NODES - 104) // 100
    check(aliased(99, below), where="here")
    with pytest.raises(RefusedYAML, match=r"here: line 2: more than"):
        check(aliased(99, below + 1), where="here")


def test_depth_is_limited():
    check("[" * MAX_DEPTH + "]" * MAX_DEPTH, where="here")
    with pytest.raises(RefusedYAML, match="levels"):
        check("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), where="here")


@pytest.mark.parametrize("text", ["010", "-0755", "1:30", "190:20:30.15", "+1_0:59"])
def test_numbers_that_read_as_others_are_refused(text):
    assert yaml.safe_load(text) != text, "that PyYAML does read a number here"
    with pytest.raises(RefusedYAML, match="base 10"):
        check(f"x: {text}", where="here")
    check(f"x: '{text}'", where="here")
    check(text, where="a lone value of the command line")


@pytest.mark.parametrize("text", ["09", "00:10:00", "0.5", "0", "1_000", "0x1F", "1e-3", "20261120", "1.2.3", "v1:30"])
def test_numbers_that_read_as_written_are_accepted(text):
    check(f"x: {text}", where="here")


@pytest.mark.parametrize("text", [".nan", ".NaN", "-.inf", "+.INF", "'.inf'", "1e999", "-1.5e400", "!!float 1e3"])
def test_numbers_are_finite_and_plain(text):
    for form in (text, f"x: {text}", f"[{text}]"):
        with pytest.raises(RefusedYAML, match=r"finite|tag"):
            check(form, where="here")


def test_texts_stay_as_they_were_written():
    assert load_texts("a: 010x\nb: [no, 1.50]\n", where="here") == {"a": "010x", "b": ["no", "1.50"]}


def test_merge_keys_and_aliases_of_small_size_are_accepted():
    text = "base: &base {lr: 1}\nx: {<<: *base, lr: 2}\ny: {<<: *base}\n"
    check(text, where="here")
    with pytest.raises(RefusedYAML, match="<< occurs twice"):
        check("base: &b {lr: 1}\nx: {<<: *b, <<: *b}\n", where="here")


@pytest.mark.parametrize("text", [r'"\e[2J"', r'"\a"', r'"\x9b31m"', r'"\x00"'])
def test_no_text_commands_a_terminal(text):
    for form in (text, f"x: {text}", f"{text}: x"):
        with pytest.raises(RefusedYAML, match="holds a control character"):
            check(form, where="here")
    check(r'"two\nlines and a\ttab"', where="here")

"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.report.numbers import count, duration, interval, listed, rate, share, short_rate, signed, strength


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.0"),
        (-0.01, "0.0"),
        (12.345, "12.3"),
        (-12.35, "−12.3"),
        (485.7, "485.7"),
        (999999, "999999.0"),
        (1.5e17, "1.5e+17"),
        (math.inf, "undefined"),
        (math.nan, "undefined"),
    ],
)
def test_rates(value, shown):
    assert rate(value) == shown


def test_differences_have_a_sign_unless_they_are_nothing():
    assert [signed(value) for value in (3.21, -3.21, 0.0, 0.04, -0.04)] == ["+3.2", "−3.2", "0.0", "0.0", "0.0"]
    assert interval(-1, 2.25, digits=2) == "[−1.00, 2.25]"
    assert (short_rate(0), short_rate(34.62)) == ("0", "34.6")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0001, "1e−4"),
        (0.00003, "3e−5"),
        (0.001, "0.001"),
        (0.01, "0.01"),
        (35, "35"),
        (35.0, "35"),
        (-5, "−5"),
        (0, "0"),
        (0.0, "0"),
        (2e6, "2e6"),
        ("unbounded", "unbounded"),
        (True, "True"),
    ],
)
def test_strengths(value, shown):
    assert strength(value) == shown


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_strength_reads_back_to_four_digits(value):
    assert float(strength(value).replace("−", "-")) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.031, "0.031 s"),
        (3, "3.0 s"),
        (42, "42 s"),
        (59.6, "60 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (1e12, "2.78e+08 h"),
    ],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def test_words():
    assert (count(1, "utterance"), count(2620, "utterance"), count(2, "kind of", "kinds of")) == (
        "1 utterance",
        "2,620 utterances",
        "2 kinds of",
    )
    assert [listed(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert (share(1, 4), share(0, 0)) == (25.0, 0.0)

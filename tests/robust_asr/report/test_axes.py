"""Axes: where a value stands, round numbers, labels that do not touch."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.report.axes import Axis, is_logarithmic, nice_top, span, steps, without_collisions

POSITIVE = st.floats(1e-6, 1e12)


def test_an_axis_is_a_straight_line():
    axis = Axis(0, 50, 10, 110)
    assert [axis(value) for value in (0, 25, 50, 100)] == [10, 60, 110, 210]
    falling = Axis(35, 10, 0, 100)
    assert [falling(value) for value in (35, 10, 22.5)] == [0, 100, 50]


def test_a_logarithmic_axis_gives_each_decade_the_same_room():
    axis = Axis(1e-4, 1e-1, 0, 300, logarithmic=True)
    assert [axis(value) for value in (1e-4, 1e-3, 1e-2, 1e-1)] == pytest.approx([0, 100, 200, 300])


def test_one_value_stands_in_the_middle():
    assert Axis(3, 3, 0, 10)(3) == 5 and Axis(3, 3, 0, 10, logarithmic=True)(3) == 5


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (8.6, (10, 2)),
        (43, (50, 10)),
        (111.9, (125, 25)),
        (313, (400, 100)),
        (100, (100, 20)),
        (0, (1, 0.5)),
        (1, (1, 0.2)),
    ],
)
def test_tops_are_round(largest, expected):
    assert nice_top(largest) == pytest.approx(expected)


@given(POSITIVE)
def test_a_top_is_reached_in_five_steps_and_not_far_away(largest):
    top, step = nice_top(largest)
    assert largest <= top * (1 + 1e-6) and top <= 2 * largest + 1e-9
    assert 2 <= len(steps(0, top, step)) <= 6 and steps(0, top, step)[-1] == pytest.approx(top)


@given(st.floats(-1e6, 0), st.floats(0, 1e6))
def test_a_span_holds_its_interval_and_zero(low, high):
    left, right, step = span(low, high)
    assert left <= low + 1e-8 * step and right >= high - 1e-8 * step
    assert any(abs(tick) < step / 1e6 for tick in steps(left, right, step))


def test_small_strengths_of_many_decades_need_a_logarithm():
    assert is_logarithmic([1e-4, 1e-2]) and not is_logarithmic([0.01, 0.02])
    assert not is_logarithmic([0, 1]) and not is_logarithmic([-1, 100])


@given(st.lists(st.tuples(st.floats(0, 300), st.text("0123456789.", min_size=1, max_size=7)), max_size=20))
def test_labels_do_not_touch_and_the_first_stays(labels):
    kept = without_collisions(labels)
    assert not labels or labels[0] in kept
    widths = [(place - 3.3 * len(text), place + 3.3 * len(text)) for place, text in kept]
    assert all(before[1] < after[0] for before, after in pairwise(widths))

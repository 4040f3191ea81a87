"""Which conditions differ in strength alone, and which of them leave the audio as it is."""

from __future__ import annotations

import pytest

from robust_asr.report.families import clean_conditions, families, is_clean, number
from tests.robust_asr.report.example import CONDITIONS

PGD = {"attack": "PGD-50", "norm": "SNR", "strength_unit": "dB", "knowledge": "exact"}


def conditions(**columns: dict) -> dict:
    return {name: {"hash": name, "columns": given} for name, given in columns.items()}


def test_the_example_has_noise_an_attack_and_one_that_does_not_know_the_defence():
    found = families({name: {"columns": columns} for name, columns in CONDITIONS.items()})
    assert [(family.attack, family.knowledge, len(family.points)) for family in found] == [
        ("gaussian noise (no attack)", "", 2),
        ("PGD-7 targeted", "exact", 3),
        ("PGD-7 targeted", "unaware", 1),
    ]
    assert [point.label for point in found[1].points] == ["1e−4", "0.001", "0.01"]
    assert [family.graded for family in found] == [True, True, False]
    assert found[2].label(found[2].points[0]) == "PGD-7 targeted (attacker unaware of the defence), L∞ 0.01"


def test_points_go_from_the_weakest_to_the_strongest():
    rising = conditions(**{f"e{e}": PGD | {"norm": "Linf", "strength": e} for e in (0.1, 0.001, 0.01)})
    assert [point.condition for point in families(rising)[0].points] == ["e0.001", "e0.01", "e0.1"]
    falling = conditions(**{f"d{d}": PGD | {"strength": d} for d in (10, 35, 20)})
    (family,) = families(falling)
    assert [point.condition for point in family.points] == ["d35", "d20", "d10"] and family.falls
    assert family.label(family.points[0]) == "PGD-50, SNR 35 dB"


def test_a_strength_may_be_a_text_or_a_word():
    found = families(
        conditions(a=PGD | {"strength": "20"}, b=PGD | {"strength": "unbounded"}, c=PGD | {"strength": ""})
    )
    assert [(point.condition, point.strength, point.label) for point in found[0].points] == [
        ("a", 20.0, "20"),
        ("b", None, "unbounded"),
        ("c", None, "c"),
    ]


@pytest.mark.parametrize(
    ("columns", "clean"),
    [
        ({"attack": "none"}, True),
        ({"attack": ""}, True),
        ({}, True),
        ({"attack": "noise", "strength": 0}, True),
        ({"attack": "noise", "strength": "0.0"}, True),
        ({"attack": "noise", "norm": "SNR", "strength": 0}, False),
        ({"attack": "noise", "strength": ""}, False),
        ({"attack": "noise", "strength": 0.01}, False),
    ],
)
def test_clean_audio(columns, clean):
    assert is_clean(columns) is clean


def test_no_attack_comes_before_noise_of_size_zero():
    given = conditions(zero={"attack": "noise", "strength": 0}, none={"attack": "none"})
    assert clean_conditions(given) == ["none", "zero"] and families(given) == ()


def test_what_is_no_number():
    assert [number(value) for value in (None, "", "x", True, "nan", "1e999", 10**400)] == [None] * 7
    assert number("1e-3") == 0.001

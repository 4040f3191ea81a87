"""Which conditions differ in strength alone, which is the stronger, and which leave the audio as it is."""

from __future__ import annotations

import inspect
from typing import get_args, get_type_hints

import pytest
import torch

from robust_asr.attacks import pgd
from robust_asr.attacks.noise import MatchedNoise, Uniform
from robust_asr.checks.rows.conditions import Condition
from robust_asr.report.labels import label, strength_of
from robust_asr.results.families import budget, clean_conditions, families, is_clean, number
from robust_asr.results.papers import column
from robust_asr.threat import L2, SNR, Ball, Linf, ThreatModel, Unbounded
from robust_asr.threat.ranges import LinfRange
from robust_asr.threat.shares import OwnShare
from robust_asr.types import AudioBatch
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
    assert [strength_of(point) for point in found[1].points] == ["1e−4", "0.001", "0.01"]
    assert [family.graded for family in found] == [True, True, False]
    assert label(found[2], found[2].points[0]) == "PGD-7 targeted (attacker unaware of the defence), L∞ 0.01"


def test_points_go_from_the_weakest_to_the_strongest():
    rising = conditions(**{f"e{e}": PGD | {"norm": "Linf", "strength": e} for e in (0.1, 0.001, 0.01)})
    assert [point.condition for point in families(rising)[0].points] == ["e0.001", "e0.01", "e0.1"]
    falling = conditions(**{f"d{d}": PGD | {"strength": d} for d in (10, 35, 20)})
    (family,) = families(falling)
    assert [point.condition for point in family.points] == ["d35", "d20", "d10"] and family.falls
    assert label(family, family.points[0]) == "PGD-50, SNR 35 dB"


def test_a_strength_may_be_a_text_or_a_word():
    found = families(
        conditions(a=PGD | {"strength": "20"}, b=PGD | {"strength": "unbounded"}, c=PGD | {"strength": ""})
    )
    assert [(point.condition, point.strength, strength_of(point)) for point in found[0].points] == [
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


READINGS = get_args(get_type_hints(SNR)["reading"])
# A threat model of every norm at some strengths, 0 among them.
AT_STRENGTHS: dict[str, list[Ball]] = {
    "Linf": [Linf(eps) for eps in (0.01, 0.0, 0.1)],
    "L2": [L2(eps) for eps in (1.0, 0.0, 10.0)],
    **{reading: [SNR(decibels, reading=reading) for decibels in (20.0, 0.0, 30.0, -10.0)] for reading in READINGS},
}


def concrete(kind: type) -> set[type]:
    """The classes of the package below a class that can be made."""
    below = {kind}.union(*(concrete(child) for child in kind.__subclasses__()))
    return {each for each in below if each.__module__.startswith("robust_asr.") and not inspect.isabstract(each)}


def test_every_threat_model_is_asked():
    asked = {type(threat) for threats in AT_STRENGTHS.values() for threat in threats}
    assert concrete(ThreatModel) == asked | {Unbounded, LinfRange, OwnShare}
    assert len({threat.columns()["norm"] for threats in AT_STRENGTHS.values() for threat in threats}) == len(
        AT_STRENGTHS
    )


@pytest.mark.parametrize("kind", AT_STRENGTHS)
def test_the_order_of_strengths_and_clean_audio_are_what_the_threat_model_allows(kind):
    """By the radius of each on one utterance: the larger is the stronger, and a radius of zero leaves the audio as it is."""
    batch = AudioBatch(torch.linspace(-0.5, 0.7, 100)[None], torch.tensor([100]), ("A",), ("1",))
    threats = {str(threat): threat for threat in AT_STRENGTHS[kind]}
    radii = {name: float(threat.radius(batch)) for name, threat in threats.items()}
    made = conditions(**{name: pgd.PaperPGD(threat).columns() for name, threat in threats.items()})
    (family,) = families(made)
    perturbing = sorted((name for name in made if radii[name] > 0), key=radii.get)
    assert [point.condition for point in family.points] == perturbing
    assert clean_conditions(made) == [name for name in made if radii[name] == 0]
    for name, about in made.items():
        seen = Condition(name, about["columns"]).is_clean, column(about["columns"] | {"metric": "WER"}).is_clean
        assert seen == (radii[name] == 0,) * 2
    budgets = [budget(family.norm, point.strength) for point in family.points]
    assert budgets == sorted(budgets) and family.falls is (family.points[0].strength > family.points[-1].strength)


@pytest.mark.parametrize("threat", [Unbounded(), LinfRange(1e-4, 0.02)])
def test_a_strength_that_is_no_number_is_the_last_and_never_clean(threat):
    drawn = {"attack": "CW", "knowledge": "exact", **threat.columns()}
    (family,) = families(conditions(drawn=drawn, weak=drawn | {"strength": 0.001}))
    assert [(point.condition, point.strength) for point in family.points] == [("weak", 0.001), ("drawn", None)]
    assert not is_clean(drawn)


def test_noise_at_a_ratio_is_never_clean():
    for noise in (Uniform(snr_db=0.0), *(MatchedNoise(SNR(0.0, reading=reading)) for reading in READINGS)):
        assert not is_clean(noise.columns()) and len(families(conditions(noise=noise.columns()))) == 1

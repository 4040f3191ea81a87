"""Names, defaults and limits of FGSM and PGD."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from robust_asr.attacks.base import Attack
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.objectives import FrameMargin, Insertions, Loss, Mixture, TokenMargin
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.square import Square
from robust_asr.attacks.standard import Standard
from robust_asr.attacks.steps import Constant, Cosine, Halving
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import L2, SNR, Linf, Unbounded
from robust_asr.threat.norms import euclidean
from tests.robust_asr.attacks.oracles import (
    Linear,
    Target,
    attacked,
    audio_batch,
    weights,
)


def test_names_and_columns_are_those_of_the_papers() -> None:
    targeted = Target()
    for attack, name in [
        (FGSM(Linf(0.01), goal=targeted), "FGSM targeted"),
        (FGSM(Linf(0.01)), "FGSM"),
        (PaperPGD(Linf(0.01), goal=targeted), "PGD-7 targeted"),
        (PaperPGD(Linf(0.01), goal=targeted, num_iterations=500), "PGD-500 targeted"),
        (PaperPGD(SNR(30.0), num_iterations=50), "PGD-50"),
        (PaperPGD(SNR(30.0), num_iterations=50, num_draws=16), "PGD-50 EoT-16"),
    ]:
        assert attack.name == name and attack.columns()["attack"] == name
    assert PaperPGD(SNR(30.0), knowledge="unaware").columns() == {
        "attack": "PGD-7",
        "norm": "SNR",
        "strength": 30.0,
        "strength_unit": "dB",
        "knowledge": "unaware",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threat": Unbounded()}, "threat must be a ball"),
        ({"num_iterations": 0}, "num_iterations must lie in"),
        ({"num_draws": 0}, "num_draws"),
        ({"check_every": 0}, "check_every"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"num_restarts": 2}, "without random_start"),
        ({"comparison_draws": 0}, "comparison_draws"),
        ({"max_samples": 0}, "max_samples"),
        ({"objective": "Loss"}, r"objective must be an object such as \{Loss: \{\}\}, found 'Loss'"),
        ({"steps": "Halving"}, r"steps must be an object such as \{Cosine: \{\}\}, found 'Halving'"),
        ({"keep": "first"}, "keep must be one of last, value, damage, found 'first'"),
        ({"precision": "16"}, "precision must be one of 32-true, bf16-mixed"),
        ({"knowledge": "some"}, "knowledge must be one of exact, straight_through, unaware"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaperPGD(**{"threat": Linf(0.01), **options})


def test_fgsm_takes_one_norm() -> None:
    with pytest.raises(ValueError, match="threat must be Linf"):
        FGSM(L2(0.1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_draws"):
        FGSM(Linf(0.1), num_draws=0)


@pytest.mark.parametrize(
    "attack", [PaperPGD(SNR(20.0, reading="snr_linf"), num_draws=4, keep="value"), FGSM(Linf(0.1))], ids=str
)
def test_described_and_built_again(attack: Attack) -> None:
    assert trust.build(describe(attack), expected=Attack) == attack
    assert hash(attack) == hash(replace(attack))


def test_default_steps_are_those_of_the_papers() -> None:
    batch, recognizer = audio_batch((500,)), Linear(weights())
    for threat, factor in [(Linf(0.01), 0.2), (L2(0.5), 0.1), (SNR(20.0), 0.1), (SNR(20.0, reading="snr_linf"), 0.1)]:
        delta = attacked(PaperPGD(threat, num_iterations=2), recognizer, batch) - batch.waveforms
        size = delta.abs().amax(1) if threat.norm == "linf" else euclidean(delta)
        assert float(size) == pytest.approx(2 * factor * float(threat.radius(batch)), rel=1e-4)


SETTINGS: list[Attack] = [
    PGD(Linf(0.001), objective=Loss()),
    PaperPGD(Linf(0.001)),
    PGD(Linf(0.001), objective=Loss(), steps=Cosine(0.3)),
    PGD(Linf(0.001), objective=Loss(), steps=Constant(0.4)),
    PGD(Linf(0.001), objective=Loss(), steps=Halving()),
    PGD(Linf(0.001), objective=Loss(), steps=Halving(1.0)),
    PGD(Linf(0.001), objective=FrameMargin()),
    PGD(Linf(0.001), objective=Insertions()),
    PGD(Linf(0.001), objective=Mixture([Loss(), FrameMargin()])),
    PGD(Linf(0.001), objective=Mixture([FrameMargin(), Insertions()])),
    PGD(Linf(0.001), objective=TokenMargin()),
    PGD(Linf(0.001), objective=Mixture([Loss(), TokenMargin()])),
    PGD(Linf(0.001), objective=Loss(), goal=Untargeted(away_from="both")),
    Square(Linf(0.001)),
    Square(Linf(0.001), objective=FrameMargin()),
    Standard(Linf(0.001)),
    Standard(Linf(0.001), forwards=100),
]


def test_every_setting_is_in_the_description() -> None:
    """Rows are kept by a hash of it, so two settings never share rows."""
    for attack in SETTINGS:
        assert trust.build(describe(attack), expected=Attack) == attack
        assert hash(trust.build(describe(attack), expected=Attack)) == hash(attack)
    assert len({json.dumps(describe(attack), sort_keys=True) for attack in SETTINGS}) == len(SETTINGS)


def test_names_say_what_is_not_the_papers() -> None:
    assert [attack.name for attack in SETTINGS[:9]] == [
        "PGD-50 cosine",
        "PGD-7",
        "PGD-50 cosine",
        "PGD-50",
        "PGD-50 halving",
        "PGD-50 halving",
        "PGD-50 margin cosine",
        "PGD-50 insertions cosine",
        "PGD-50 loss+margin cosine",
    ]
    tokens = [attack.name for attack in SETTINGS[10:12]]
    assert tokens == ["PGD-50 token margin cosine", "PGD-50 loss+token margin cosine"]

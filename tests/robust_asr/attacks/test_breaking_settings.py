"""Settings of the breaking point: written down, built again, and refused with a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from robust_asr.attacks.base import Attack
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.noise import Clean
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.standard import Standard
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import SNR, Linf
from robust_asr.threat.ranges import LinfRange
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import Target, seeds_of, spoken


def test_it_is_written_down_and_built_again() -> None:
    attack = BreakingPoint(Standard(Linf(0.1), forwards=60), 3e-5, resolution_db=2.0)
    assert trust.build(describe(attack), expected=Attack) == attack
    assert attack.columns() == {
        "attack": "breaking point (50 % of the words): standard-1 (60 forwards)",
        "norm": "Linf",
        "strength": "3e-05 to 0.1",
        "strength_unit": "amplitude",
        "knowledge": "exact",
        "breaking": "50 % of the words",
    }


WRONG: Sequence[tuple[dict, str]] = (
    ({"attack": Clean()}, "a radius to search, found Unbounded() of none"),
    ({"attack": Imperceptible(Target("NO"))}, "a radius to search, found Unbounded()"),
    ({"attack": PaperPGD(Linf(0.0))}, "a radius to search, found Linf(eps=0.0)"),
    ({"attack": PaperPGD(LinfRange(0.001, 0.01))}, "a radius to search, found LinfRange("),
    ({"attack": "PGD"}, "attack must be an attack"),
    (
        {"attack": FGSM(Linf(0.1))},
        "FGSM takes no budget of its own for each utterance: use Standard, PGD or MatchedNoise",
    ),
    ({"attack": PaperPGD(Linf(0.1), knowledge="unaware")}, "its knowledge must be exact, found unaware"),
    ({"smallest": 0.1}, "smallest: must be a positive amplitude below it than Linf(eps=0.1)"),
    ({"smallest": 0.0}, "smallest: must be a positive amplitude"),
    ({"attack": PaperPGD(SNR(20.0)), "smallest": 10.0}, "smallest: must be a higher SNR than"),
    ({"resolution_db": 0.0}, "resolution_db must lie in (0, 30], half of the range"),
    ({"resolution_db": 31.0}, "resolution_db must lie in (0, 30], half of the range"),
    ({"share": 0.0}, "share must lie in (0, 1]"),
    ({"comparison_draws": 0}, "comparison_draws must lie in"),
)


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_settings_are_one_sentence(given: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        BreakingPoint(**{"attack": PaperPGD(Linf(0.1)), "smallest": 1e-4} | given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_too_few_forwards_for_one_budget_are_one_sentence() -> None:
    batch = spoken(1, seed=5)
    with pytest.raises(ValueError, match=r"forwards is 12, too few for the \d members .* it must be at least \d+$"):
        BreakingPoint(Standard(Linf(0.1), forwards=12), 1e-4)(four_words(), batch, seeds=seeds_of(batch))

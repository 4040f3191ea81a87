"""Drawn strengths: their distribution, what keys them, and that each utterance is attacked as drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from robust_asr.attacks.base import Attack
from robust_asr.attacks.offline import OfflinePGD
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.randomness import utterance_seeds
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import L2, Linf
from robust_asr.threat.norms import euclidean, maximum
from tests.robust_asr.attacks.oracles import audio_batch, seeds_of
from tests.toys import ToyCTC

LENGTHS = (8000, 6000, 4800, 8000, 3200, 5000)
QUICK = OfflinePGD(iterations=(1, 2))


def test_strong_ones_are_drawn_in_proportion_to_their_rank() -> None:
    attacks = OfflinePGD().drawn(utterance_seeds(0, [f"utterance-{index}" for index in range(6000)]))
    counts = Counter((type(attack.threat), attack.threat.eps) for attack in attacks)
    expected = {(Linf, eps): rank / 12 for rank, eps in enumerate((0.001, 0.01, 0.1), 1)}
    expected |= {(L2, eps): rank / 20 for rank, eps in enumerate((0.2, 0.5, 1.5, 1.9), 1)}
    assert counts.keys() == expected.keys()
    for choice, share in expected.items():
        assert counts[choice] / 6000 == pytest.approx(share, abs=4 * (share * (1 - share) / 6000) ** 0.5)
    iterations = Counter(attack.num_iterations for attack in attacks)
    for rank, count in enumerate((10, 20, 50, 100, 200), 1):
        assert iterations[count] / 6000 == pytest.approx(rank / 15, abs=4 * (rank / 15 / 6000) ** 0.5)


def test_each_utterance_is_attacked_as_drawn_whoever_its_neighbours_are() -> None:
    torch.manual_seed(0)
    batch = replace(audio_batch(LENGTHS), texts=tuple("ABCDEF"))
    recognizer, seeds = ToyCTC(), seeds_of(batch)
    together = QUICK.generate(recognizer, batch, seeds=seeds)
    attacks = QUICK.drawn(seeds)
    assert len({(attack.threat, attack.num_iterations) for attack in attacks}) > 2
    for row, attack in enumerate(attacks):
        part = batch.select([row])
        alone = attack.generate(recognizer, part, seeds=seeds[row : row + 1])
        found = together.waveforms[row : row + 1, : LENGTHS[row]]
        torch.testing.assert_close(found, alone.waveforms, rtol=0, atol=0.02 * attack.threat.eps)
        size = maximum if isinstance(attack.threat, Linf) else euclidean
        assert 0 < float(size(found - part.waveforms)) <= attack.threat.eps * (1 + 1e-5)
        assert together.iterations[row] == attack.num_iterations


def test_description_builds_it_again() -> None:
    attack = OfflinePGD(linf=(), l2=(0.5, 1.0), iterations=(3,))
    assert trust.build(describe(attack), expected=Attack) == attack
    assert attack.columns() == {
        "attack": "offline PGD",
        "norm": "",
        "strength": "unbounded",
        "strength_unit": "",
        "knowledge": "exact",
    }
    assert {type(found) for found in attack.drawn(torch.arange(20))} == {PaperPGD}


@pytest.mark.parametrize(
    ("field", "value"),
    [("linf", (0.1, 0.01)), ("iterations", ()), ("iterations", (0, 1)), ("linf", (0.1, 2.0)), ("step_factor", 3.0)],
)
def test_settings_are_checked(field: str, value: object) -> None:
    names = {"linf": "linf|eps", "iterations": "iterations", "step_factor": "a step"}
    with pytest.raises(ValueError, match=names[field]):
        OfflinePGD(**{field: value})


def test_one_norm_at_least() -> None:
    with pytest.raises(ValueError, match="linf and l2"):
        OfflinePGD(linf=(), l2=())

"""A drawn radius: its distribution, what keys it, and that an attack stays within it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from robust_asr.attacks.pgd import PaperPGD
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import Ball, Linf
from robust_asr.threat.ranges import LinfRange
from robust_asr.types import AudioBatch
from tests.robust_asr.attacks.oracles import audio_batch, seeds_of
from tests.toys import ToyCTC

LENGTHS = (8000, 4800, 1600)


def test_log_of_the_radius_is_uniform() -> None:
    low, high = 1e-4, 2e-2
    ids = tuple(f"utterance-{index}" for index in range(2000))
    batch = AudioBatch(torch.zeros(2000, 1), torch.ones(2000, dtype=torch.long), ("A",) * 2000, ids)
    radius = LinfRange(low, high).radius(batch)
    assert low <= float(radius.min()) and float(radius.max()) <= high * (1 + 1e-6)
    shares = (radius.double().log() - math.log(low)) / math.log(high / low)
    expected = (torch.arange(2000) + 0.5) / 2000
    assert (shares.sort().values - expected).abs().max() < 1.63 / 2000**0.5, "Kolmogorov-Smirnov at one per cent"


def test_radius_is_keyed_by_seed_utterance_and_step_alone() -> None:
    batch = audio_batch(LENGTHS)
    threat = LinfRange(1e-5, 1e-1, seed=3, step=1)
    together = threat.radius(batch)
    for row in range(3):
        assert threat.radius(batch.select([row])).item() == together[row].item()
    assert len(set(together.tolist())) == 3
    for other in (replace(threat, seed=4), replace(threat, step=2)):
        assert not (other.radius(batch) == together).any()


@dataclass(frozen=True)
class Growing(Linf):
    """A threat model of a user's own, whose radius grows with the epoch: no class of ours is asked for."""

    def of_epoch(self, *, seed: int, epoch: int) -> Linf:
        return Linf(self.eps * (epoch + 1))


def test_the_radius_moves_with_the_epoch() -> None:
    batch, attack = audio_batch(LENGTHS), PaperPGD(LinfRange(1e-5, 1e-1), num_iterations=3)
    first, second = (attack.of_epoch(seed=3, epoch=epoch) for epoch in (0, 1))
    assert first.threat == LinfRange(1e-5, 1e-1, seed=3, step=0) and second.num_iterations == 3
    assert not (first.threat.radius(batch) == second.threat.radius(batch)).any()
    assert PaperPGD(Growing(0.01)).of_epoch(seed=0, epoch=2).threat == Linf(0.03)
    plain = PaperPGD(Linf(0.01))
    assert plain.of_epoch(seed=0, epoch=7) is plain


def test_one_bound_is_a_plain_ball() -> None:
    assert LinfRange(1e-3, 1e-3).radius(audio_batch(LENGTHS)).tolist() == pytest.approx([1e-3] * 3)


def test_attack_reaches_the_radius_of_each_utterance_and_no_more() -> None:
    torch.manual_seed(0)
    batch, threat = audio_batch(LENGTHS), LinfRange(1e-4, 1e-2)
    batch = replace(batch, texts=("A", "B", "C"))
    found = PaperPGD(threat, num_iterations=7).generate(ToyCTC(), batch, seeds=seeds_of(batch))
    assert not any(found.notes)
    attacked = batch.replace(found.waveforms)
    assert threat.contains(found.waveforms, batch).all()
    sizes = threat.size(attacked.waveforms - batch.waveforms, batch)
    torch.testing.assert_close(sizes, threat.radius(batch).double(), rtol=1e-4, atol=1e-7)


def test_description_builds_it_again() -> None:
    threat = LinfRange(1e-4, 2e-2, seed=5, step=6)
    assert trust.build(describe(threat), expected=Ball) == threat
    assert threat.columns() == {"norm": "Linf", "strength": "0.0001 to 0.02", "strength_unit": "amplitude"}


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (-1e-3, 0.1), (0.2, 0.1), (0.1, 1.5), (float("nan"), 0.1)])
def test_bounds_are_checked(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="eps_min and eps_max"):
        LinfRange(*bounds)

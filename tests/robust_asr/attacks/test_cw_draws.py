"""CW on systems that draw: how many, whether new ones, and what counts as a success."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.cw import CarliniWagner
from tests.robust_asr.attacks.oracles import (
    Stochastic,
    Target,
    audio_batch,
)
from tests.robust_asr.attacks.victims import Peak, silence, workload


class Lucky(Stochastic):
    """Hears "NO" in the draws whose seed is divisible by ``divisor``; keeps the draws that it was asked."""

    def __init__(self, weights: Tensor, divisor: int) -> None:
        super().__init__(weights)
        self.divisor = divisor
        self.asked: list[Tensor] = []

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> list:
        self.asked.append(seeds)
        heard = super().transcribe(waveforms, lengths, seeds=seeds)
        lucky = (seeds % self.divisor == 0).tolist()
        return [replace(one, text="NO" if flag else "LOW") for one, flag in zip(heard, lucky, strict=True)]


@pytest.mark.parametrize(("num_draws", "success_draws"), [(1, 1), (4, 1), (4, 4), (2, 5)])
def test_draws_are_counted_and_all_different(num_draws: int, success_draws: int) -> None:
    # Defect 12.
    victim, batch = Lucky(torch.ones(50), 2**62), audio_batch([50, 30])
    attack = CarliniWagner(
        Target(), num_iterations=7, check_every=3, num_draws=num_draws, success_draws=success_draws, bound=0.01
    )
    attack.shrink(victim, workload(victim, batch, attack.goal))
    assert sum(victim.rows) == 2 * 8 * num_draws
    # Looks after 0, 3, 6 and 7 updates.
    asked = torch.cat(victim.asked)
    assert len(asked) == 2 * 4 * success_draws == len(asked.unique())
    state = attack.shrink(victim, workload(victim, batch, attack.goal))
    assert state.forwards.tolist() == [8 * num_draws + 4 * success_draws] * 2


def test_success_on_a_fraction_of_the_draws() -> None:
    batch, victim = audio_batch([50]), Lucky(torch.ones(50), 3)
    numbers = {"num_iterations": 3, "check_every": 3, "success_draws": 30}
    work = workload(victim, batch, Target())
    for fraction, expected in ((0.1, True), (0.9, False)):
        state = CarliniWagner(Target(), success_fraction=fraction, **numbers).shrink(victim, work)
        assert state.size.isfinite().item() == expected


def test_a_recogniser_without_chance_is_asked_once() -> None:
    victim, batch = Peak({40: 0.9}), silence(40)
    victim.stochastic = False
    state = CarliniWagner(Target(), num_iterations=5, num_draws=16, success_draws=8).shrink(
        victim, workload(victim, batch, Target())
    )
    assert sum(victim.rows) == 6 and sum(victim.looks) == 2 and state.forwards.tolist() == [8]

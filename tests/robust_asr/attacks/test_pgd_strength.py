"""PGD on a recogniser that has learnt, and what stopping at a success changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.base import AttackResult
from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.threat import Linf
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import (
    Linear,
    Oracle,
    Target,
    attacked,
    audio_batch,
    seeds_of,
    spoken,
    weights,
)


def test_early_stopping_changes_nothing_for_the_others() -> None:
    batch = audio_batch((500, 400, 300, 200, 100, 1))
    # The level is chosen so that some reach it soon, some late and some never.
    recognizer = Linear(weights(), level=3.0)
    plain = PaperPGD(Linf(0.02), num_iterations=25, steps=Constant(0.05))
    stopping = replace(plain, stop_on_success=True, check_every=2)
    found, full = (attack(recognizer, batch, seeds=seeds_of(batch)) for attack in (stopping, plain))
    iterations = found.iterations.tolist()
    assert len(set(iterations)) >= 3 and max(iterations) == 25 and found.success.any() and not found.success.all()
    assert torch.equal(found.success, full.success)
    for row, stopped in enumerate(iterations):
        alone = batch.select([row])
        expected = attacked(replace(plain, num_iterations=stopped), recognizer, alone)[0]
        torch.testing.assert_close(found.batch.waveforms[row, : len(expected)], expected, rtol=0, atol=1e-7)
        # One look every second iteration and at the end.
        assert int(found.forwards[row]) == stopped + stopped // 2 + (stopped == 25)


def test_a_success_needs_no_other_restart() -> None:
    batch, recognizer = audio_batch((500, 1)), Linear(weights(), level=1.0)
    attack = PaperPGD(Linf(0.02), random_start=True, num_restarts=3, stop_on_success=True, check_every=5)
    result = attack(recognizer, batch, seeds=seeds_of(batch))
    assert result.success.tolist() == [True, False] and result.iterations.tolist() == [5, 21]


def test_success_by_luck_does_not_stop() -> None:
    class Coin(Oracle):
        """Hears "HIGH" in half of the draws, whatever is said."""

        def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
            return waveforms.sum(1) * 0 + (seeds % 2 - 0.5)

    batch = audio_batch((50,) * 8)
    results = [
        PaperPGD(Linf(0.01), num_iterations=3, stop_on_success=True, check_every=1, num_draws=num_draws).perturb(
            Coin(), batch, Coin().targets(batch.texts), seeds=seeds_of(batch)
        )
        for num_draws in (1, 12)
    ]
    assert results[0].iterations.min() == 1 and results[1].iterations.min() == 3


def success_rate(result: AttackResult) -> float:
    return float(result.success.float().mean())


def test_a_recogniser_that_has_learnt_breaks_with_the_budget_and_not_under_noise() -> None:
    batch, recognizer = spoken(12, seed=5), four_words()
    results = [PaperPGD(Linf(eps))(recognizer, batch, seeds=seeds_of(batch)) for eps in (0.0, 0.0003, 0.003, 0.03)]
    rates = [success_rate(result) for result in results]
    assert rates[0] == 0 and rates[1] < 0.5 and rates[2:] == [1, 1]
    # In the mean: of the largest budgets an utterance here and there is past its highest loss.
    means = [float(result.loss.mean()) for result in results[:3]]
    assert all(larger > 5 * smaller for smaller, larger in pairwise(means))
    for distribution in ("gaussian", "uniform", "signs"):
        noise = MatchedNoise(Linf(0.03), distribution=distribution)(recognizer, batch, seeds=seeds_of(batch))
        assert success_rate(noise) < 0.2


def test_target_is_reached() -> None:
    batch, recognizer = spoken(4, seed=5), four_words()
    attack = PaperPGD(
        Linf(0.1), goal=Target("UP GO"), num_iterations=200, steps=Constant(0.02), stop_on_success=True, check_every=5
    )
    result = attack(recognizer, batch, seeds=seeds_of(batch))
    assert result.success.all() and set(result.hypotheses) == {"UP GO"}
    assert result.iterations.max() < 100


@pytest.mark.parametrize("goal", [Untargeted(), Target("UP GO")], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("eps", [0.0003, 0.001])
def test_bf16_is_as_strong(goal: object, eps: float) -> None:
    batch, recognizer = spoken(24, seed=5), four_words()
    attack = PaperPGD(Linf(eps), goal=goal, num_iterations=15)
    exact, half = (replace(attack, precision=precision) for precision in ("32-true", "bf16-mixed"))
    exact, half = (attack(recognizer, batch, seeds=seeds_of(batch)) for attack in (exact, half))
    assert half.batch.waveforms.dtype == torch.float32
    assert not torch.equal(half.batch.waveforms, exact.batch.waveforms)
    # By 2 of 24 with weights off by 1e-5; half precision alone moves a loss below a nat by some tenths of one.
    assert success_rate(half) == pytest.approx(success_rate(exact), abs=0.2)
    assert float(half.loss.mean()) == pytest.approx(float(exact.loss.mean()), rel=0.15, abs=0.3)

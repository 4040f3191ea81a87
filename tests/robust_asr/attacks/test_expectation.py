"""Expectation over transformation: draws are counted, kept apart and averaged, whatever the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Expectation
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.threat import L2, Ball, Linf
from tests.robust_asr.attacks.oracles import (
    SIZES,
    Linear,
    Stochastic,
    attacked,
    audio_batch,
    seeds_of,
    weights,
)
from tests.toys import ToyAttention, ToyCTC, ToyTransducer


def test_one_pass_an_iteration() -> None:
    batch = audio_batch(SIZES)
    for attack, passes in [
        (PaperPGD(Linf(0.01)), 7),
        (PaperPGD(Linf(0.01), keep="value"), 7 + 8),
        (PaperPGD(Linf(0.01), random_start=True, num_restarts=3), 3 * (7 + 8)),
        (FGSM(Linf(0.01)), 1),
    ]:
        recognizer = Linear(weights())
        result = attack(recognizer, batch, seeds=seeds_of(batch))
        # The last pass is the verdict's.
        assert recognizer.rows == [3] * (passes + 1) and result.forwards.tolist() == [passes] * 3


def test_draws_are_counted_and_all_different() -> None:
    """Defect 12 of other systems: "16" that averages one gradient."""
    batch, seen = audio_batch(SIZES), []

    class Listening(Linear):
        def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
            seen.extend(seeds.tolist())
            return super().value(waveforms, lengths, seeds)

    recognizer = Listening(weights())
    attack = PaperPGD(Linf(0.01), num_iterations=3, num_draws=16)
    found = attack.perturb(recognizer, batch, recognizer.targets(batch.texts), seeds=seeds_of(batch))
    assert sum(recognizer.rows) == len(seen) == len(set(seen)) == 3 * 16 * 3
    assert found.forwards.tolist() == [48] * 3
    # By default draws cost no memory: no pass is larger than the batch.
    assert max(recognizer.rows) == 3


def test_a_recogniser_without_draws_is_asked_once() -> None:
    class Fixed(Linear):
        stochastic = False

    batch, recognizer = audio_batch(SIZES), Fixed(weights(), level=1e9)
    attack = PaperPGD(L2(0.5), num_iterations=3, num_draws=16, keep="value", stop_on_success=True, check_every=2)
    found = attack.perturb(recognizer, batch, recognizer.targets(batch.texts), seeds=seeds_of(batch))
    assert recognizer.rows == [3] * 4 and found.forwards.tolist() == [6] * 3
    once = attacked(replace(attack, num_draws=1), Linear(weights(), level=1e9), batch)
    torch.testing.assert_close(found.waveforms, once)


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=str)
def test_memory_bounds_change_nothing(threat: Ball) -> None:
    batch = audio_batch((500, 450, 300, 40, 1))
    results = {}
    for max_samples in (1, 900, 2000, 2500, 5000, 10**6, None):
        recognizer = Stochastic(weights())
        attack = PaperPGD(threat, num_iterations=4, num_draws=6, max_samples=max_samples, keep="value")
        results[max_samples] = attacked(attack, recognizer, batch)
        most = 5 if max_samples is None else max(1, max_samples // 500)
        # The verdict is one pass more, of the whole batch.
        assert max(recognizer.rows[:-1]) <= most and sum(recognizer.rows[:-1]) == (4 * 6 + 8) * 5
    for found in results.values():
        torch.testing.assert_close(found, results[None], rtol=0, atol=1e-6)


def test_a_fixed_window_counts_in_full() -> None:
    """A recogniser that fills every utterance up to a window pays for the window, however short the audio is."""

    class Windowed(Stochastic):
        def window(self, lengths: Tensor) -> Tensor:
            return lengths.clamp(min=2000)

    batch = audio_batch((500, 450, 300, 40, 1))
    for max_samples, most in ((4000, 2), (5999, 2), (6000, 3), (None, 5)):
        recognizer = Windowed(weights())
        attacked(PaperPGD(Linf(0.01), num_iterations=2, num_draws=6, max_samples=max_samples), recognizer, batch)
        assert max(recognizer.rows[:-1]) == most and sum(recognizer.rows[:-1]) == 2 * 6 * 5


def test_variance_falls_with_the_number_of_draws() -> None:
    """The gradient of ``Stochastic`` is w + u with u ~ N(0, 1): the mean over J draws has variance 1 / J."""
    batch, recognizer = audio_batch((500, 300)), Stochastic(weights())
    work = Workload.whole(batch, recognizer.targets(batch.texts), batch.texts, seeds=seeds_of(batch))
    for num_draws in (1, 4, 16):
        loss = Expectation(recognizer, work, num_draws=num_draws)
        errors = torch.stack([loss.gradient(batch.waveforms, step=step)[1] - weights() for step in range(20)])
        for row, length in enumerate((500, 300)):
            assert float(errors[:, row, :length].var()) == pytest.approx(1 / num_draws, rel=0.2)


def smoothed(toy: type[Recognizer], sigma: float) -> Recognizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Defended(GaussianNoise(sigma), toy().eval())


def workload(recognizer: Recognizer, rows: Sequence[int] = (0, 1, 2), *, seed: int = 0) -> Workload:
    batch = replace(audio_batch((1600, 900, 1)), texts=("AB", "A", "")).select(rows)
    return Workload.whole(batch, recognizer.targets(batch.texts), batch.texts, seeds=seeds_of(batch, seed))


def test_variance_falls_for_a_smoothed_recogniser() -> None:
    recognizer, spread = smoothed(ToyCTC, 0.02), {}
    for num_draws in (1, 4, 16):
        gradients = []
        for seed in range(100):
            work = workload(recognizer, seed=seed)
            gradients.append(
                Expectation(recognizer, work, num_draws=num_draws).gradient(work.batch.waveforms, step=0)[1]
            )
        # The third utterance has one sample.
        spread[num_draws] = torch.stack(gradients).var(0).sum(1)[:2]
    for num_draws in (4, 16):
        torch.testing.assert_close(spread[num_draws] * num_draws, spread[1], rtol=0.2, atol=0)


@pytest.mark.parametrize("toy", [ToyCTC, ToyAttention, ToyTransducer])
def test_memory_bounds_and_neighbours_on_recognisers(toy: type[Recognizer]) -> None:
    recognizer = smoothed(toy, 0.1)
    work, alone = workload(recognizer), workload(recognizer, [1])
    losses, gradient = Expectation(recognizer, work, num_draws=4).gradient(work.batch.waveforms, step=0)
    for max_samples in (1, 5 * 1600):
        bounded = Expectation(recognizer, work, num_draws=4, max_samples=max_samples)
        found = bounded.gradient(work.batch.waveforms, step=0)
        torch.testing.assert_close(found[0], losses)
        torch.testing.assert_close(found[1], gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    size = alone.batch.waveforms.shape[1]
    slope = Expectation(recognizer, alone, num_draws=4).gradient(alone.batch.waveforms, step=0)[1]
    torch.testing.assert_close(slope[0], gradient[1, :size], rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize("toy", [ToyCTC, ToyAttention, ToyTransducer])
def test_one_draw_without_noise_is_the_plain_gradient(toy: type[Recognizer]) -> None:
    recognizer = smoothed(toy, 0.0)
    work = workload(recognizer)
    plain = input_gradient(
        lambda values: recognizer.loss(values, work.batch.lengths, work.targets), work.batch.waveforms
    )
    found = Expectation(recognizer, work).gradient(work.batch.waveforms, step=0)
    assert torch.equal(found[0], plain[0]) and torch.equal(found[1], plain[1])


def test_more_draws_find_the_mean() -> None:
    batch, recognizer = audio_batch((500, 300)), Stochastic(0.3 * weights())
    best = [0.01 * float((0.3 * weights()[:length]).norm(1)) for length in (500, 300)]
    means = {}
    for num_draws in (1, 32):
        # One step: over more iterations, even single draws average out.
        found = attacked(
            PaperPGD(Linf(0.01), num_iterations=1, steps=Constant(1.0), num_draws=num_draws), recognizer, batch
        )
        means[num_draws] = ((found - batch.waveforms) @ (0.3 * weights())).tolist()
    assert all(many > 1.5 * one for one, many in zip(means[1], means[32], strict=True))
    assert all(0.8 * most < many <= most for many, most in zip(means[32], best, strict=True))

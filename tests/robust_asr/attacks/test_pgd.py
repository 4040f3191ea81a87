"""FGSM and PGD against closed forms, a plain NumPy reference, and recognisers of three kinds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from robust_asr import trust
from robust_asr.attacks.base import Attack, AttackResult
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Expectation
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.pgd import PGD
from robust_asr.configuration import describe
from robust_asr.norms import euclidean
from robust_asr.threat import L2, SNR, Ball, Linf, Unbounded
from robust_asr.types import AudioBatch
from tests.robust_asr.attacks.oracles import (
    Breaking,
    Linear,
    Oracle,
    Quadratic,
    Stochastic,
    Target,
    audio_batch,
    listener,
    seeds_of,
    spoken,
)
from tests.robust_asr.test_contract import LENGTHS, TEXTS, assert_unchanged, audio, snapshot, trained

# 100 %, 60 %, one sample.
SIZES = (500, 300, 1)
GOALS = [Untargeted(), Target()]
BALLS = [
    Linf(0.01),
    L2(0.5),
    SNR(20.0),
    SNR(20.0, reading="snr_linf"),
    SNR(20.0, reading="maxsnr_linf"),
]


def weights(size: int = 500, seed: int = 3) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def attacked(attack: Attack, recognizer: Oracle, batch: AudioBatch) -> Tensor:
    return attack(recognizer, batch, seeds=seeds_of(batch)).batch.waveforms


def attained(attack: Attack, recognizer: Oracle, batch: AudioBatch) -> list[float]:
    """How far the loss of each utterance moved the attacker's way."""
    before = recognizer.value(batch.waveforms, batch.lengths, seeds_of(batch))
    after = recognizer.value(attacked(attack, recognizer, batch), batch.lengths, seeds_of(batch))
    return (attack.goal.sign * (after - before)).tolist()


def success_rate(result: AttackResult) -> float:
    return float(result.success.float().mean())


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_linear_loss_moves_by_the_dual_norm(threat: Ball, goal: object, random_start: bool) -> None:
    """Max of w.d over the ball: radius * ||w||_1 in the maximum norm, radius * ||w||_2 in the Euclidean, for each length."""
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    attack = PGD(threat, goal=goal, num_iterations=60, random_start=random_start)
    dual = [float(weights()[:length].norm(1 if threat.norm == "linf" else 2)) for length in SIZES]
    best = [radius * norm for radius, norm in zip(threat.radius(batch).tolist(), dual, strict=True)]
    found = attained(attack, recognizer, batch)
    assert found == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
def test_fgsm_is_its_formula_to_the_bit(goal: object) -> None:
    batch, recognizer, eps = audio_batch(SIZES, level=0.7), Linear(weights()), 0.1
    found = attacked(FGSM(Linf(eps), goal=goal), recognizer, batch)
    for row, length in enumerate(SIZES):
        x = batch.waveforms[row, :length]
        expected = (x + goal.sign * eps * weights()[:length].sign()).clamp(-1, 1)
        assert torch.equal(found[row, :length], expected) and not found[row, length:].any()
    assert float(found.abs().max()) == 1


@pytest.mark.parametrize("goal", [Untargeted(), Target("UP GO")], ids=["untargeted", "targeted"])
def test_pgd_of_one_whole_step_is_fgsm_to_the_bit(goal: object) -> None:
    batch, recognizer = spoken(3, seed=5), listener()
    one = PGD(Linf(0.01), goal=goal, num_iterations=1, step_factor=1.0)
    assert torch.equal(attacked(one, recognizer, batch), attacked(FGSM(Linf(0.01), goal=goal), recognizer, batch))


def test_quadratic_loss_is_solved_at_the_corner_and_inside() -> None:
    batch, eps = audio_batch((400,)), 0.01
    x = batch.waveforms[0]
    # Half of the samples have their optimum inside the ball, at 0.4 eps, the others far outside.
    optimum = x + torch.where(torch.arange(400) % 2 == 0, 0.4, 50.0) * eps * weights(400).sign()
    attack = PGD(Linf(eps), goal=Target(), num_iterations=60, step_factor=0.02)
    found = attacked(attack, Quadratic(optimum), batch)[0]
    torch.testing.assert_close(found, optimum.clamp(x - eps, x + eps), rtol=0, atol=0.02 * eps + 1e-7)
    farthest = attacked(PGD(Linf(eps), num_iterations=40), Quadratic(optimum), batch)[0]
    torch.testing.assert_close(farthest, x - eps * (optimum - x).sign(), rtol=0, atol=1e-7)


class Curved(Linear):
    """sum of tanh(3 w x)^2: every step has another gradient."""

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return (3 * self.weights[: waveforms.shape[1]] * waveforms).tanh().square().sum(1)


def reference_pgd(x: np.ndarray, attack: PGD) -> np.ndarray:
    """PGD on ``Curved`` as the papers write it, for one utterance in double precision."""
    w, delta = weights().double().numpy()[: len(x)], np.zeros_like(x)
    eps = attack.threat.eps
    for _ in range(attack.num_iterations):
        value = np.tanh(3 * w * (x + delta))
        gradient = attack.goal.sign * 6 * w * value * (1 - value**2)
        if isinstance(attack.threat, Linf):
            delta = np.clip(delta + 0.2 * eps * np.sign(gradient), -eps, eps)
        else:
            delta = delta + 0.1 * eps * gradient / np.linalg.norm(gradient)
            delta = delta * min(1, eps / np.linalg.norm(delta))
        delta = np.clip(x + delta, -1, 1) - x
    return x + delta


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
@pytest.mark.parametrize("threat", [Linf(0.05), L2(1.5)], ids=str)
def test_iterates_are_those_of_a_plain_reference(threat: Ball, goal: object) -> None:
    batch = audio_batch(SIZES, level=0.4)
    attack = PGD(threat, goal=goal, num_iterations=15)
    found = attacked(attack, Curved(weights()), batch)
    for row, length in enumerate(SIZES):
        expected = reference_pgd(batch.waveforms[row, :length].double().numpy(), attack)
        np.testing.assert_allclose(found[row, :length].numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_silence_and_the_largest_budgets(threat: Ball) -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    batch.waveforms[1] = 0
    result = PGD(threat)(recognizer, batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    refused = isinstance(threat, SNR)
    assert bool(result.notes[1]) == refused and not result.notes[0] and not result.notes[2]
    assert bool(result.batch.waveforms[1].any()) != refused
    # Asked directly, without the refusal: still no noise and no nan.
    direct = PGD(threat).perturb(recognizer, batch, recognizer.targets(batch.texts), seeds=seeds_of(batch))
    assert direct.waveforms.isfinite().all() and bool(direct.waveforms[1].any()) != refused


def test_no_budget_changes_nothing_and_the_whole_box_stays_a_box() -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    for threat in (Linf(0.0), L2(0.0)):
        for attack in (PGD(threat), PGD(threat, random_start=True, num_restarts=2)):
            assert torch.equal(attacked(attack, recognizer, batch), batch.waveforms)
    found = attacked(FGSM(Linf(1.0)), recognizer, batch)
    assert float(found.abs().max()) <= 1


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=str)
def test_no_gradient_is_noted(threat: Ball) -> None:
    batch = audio_batch(SIZES)
    result = PGD(threat)(Linear(torch.zeros(500)), batch, seeds=seeds_of(batch))
    assert torch.equal(result.batch.waveforms, batch.waveforms)
    assert set(result.notes) == {"its gradient was zero in every iteration"}


@pytest.mark.parametrize("threat", [Linf(0.01), L2(1.0)], ids=str)
def test_a_gradient_that_breaks_stops_one_utterance_only(threat: Ball) -> None:
    batch = audio_batch(SIZES)
    batch.waveforms[:, 0] = torch.tensor([0.0, -0.5, 0.0])
    w = weights().abs() + 1
    result = PGD(threat, num_iterations=20)(Breaking(w, 0.0045), batch, seeds=seeds_of(batch))
    assert [bool(note) for note in result.notes] == [True, False, True]
    assert int(result.iterations[1]) == 20 and all(0 < int(result.iterations[row]) < 20 for row in (0, 2))
    assert result.batch.waveforms.isfinite().all() and (result.batch.waveforms[[0, 2], 0] > 0.0045).all()
    for row, stopped in enumerate(result.iterations.tolist()):
        # The gradient breaks at one sample only; none of the others moves any more.
        expected = attacked(PGD(threat, num_iterations=stopped), Linear(w), batch)[row]
        torch.testing.assert_close(result.batch.waveforms[row], expected, rtol=0, atol=1e-6)


def test_one_pass_an_iteration() -> None:
    batch = audio_batch(SIZES)
    for attack, passes in [
        (PGD(Linf(0.01)), 7),
        (PGD(Linf(0.01), keep="best"), 8),
        (PGD(Linf(0.01), random_start=True, num_restarts=3), 24),
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
    attack = PGD(Linf(0.01), num_iterations=3, num_draws=16)
    found = attack.perturb(recognizer, batch, recognizer.targets(batch.texts), seeds=seeds_of(batch))
    assert sum(recognizer.rows) == len(seen) == len(set(seen)) == 3 * 16 * 3
    assert found.forwards.tolist() == [48] * 3
    # By default draws cost no memory: no pass is larger than the batch.
    assert max(recognizer.rows) == 3


def test_a_recogniser_without_draws_is_asked_once() -> None:
    class Fixed(Linear):
        stochastic = False

    batch, recognizer = audio_batch(SIZES), Fixed(weights(), level=1e9)
    attack = PGD(L2(0.5), num_iterations=3, num_draws=16, keep="best", stop_on_success=True, check_every=2)
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
        attack = PGD(threat, num_iterations=4, num_draws=6, max_samples=max_samples, keep="best")
        results[max_samples] = attacked(attack, recognizer, batch)
        most = 5 if max_samples is None else max(1, max_samples // 500)
        # The verdict is one pass more, of the whole batch.
        assert max(recognizer.rows[:-1]) <= most and sum(recognizer.rows[:-1]) == 5 * 6 * 5
    for found in results.values():
        torch.testing.assert_close(found, results[None], rtol=0, atol=1e-6)


def test_variance_falls_with_the_number_of_draws() -> None:
    """The gradient of ``Stochastic`` is w + u with u ~ N(0, 1): the mean over J draws has variance 1 / J."""
    batch, recognizer = audio_batch((500, 300)), Stochastic(weights())
    work = Workload.whole(batch, recognizer.targets(batch.texts), batch.texts, seeds=seeds_of(batch))
    for num_draws in (1, 4, 16):
        loss = Expectation(recognizer, work, num_draws=num_draws)
        errors = torch.stack([loss.gradient(batch.waveforms, step=step)[1] - weights() for step in range(20)])
        for row, length in enumerate((500, 300)):
            assert float(errors[:, row, :length].var()) == pytest.approx(1 / num_draws, rel=0.2)


def test_more_draws_find_the_mean() -> None:
    batch, recognizer = audio_batch((500, 300)), Stochastic(0.3 * weights())
    best = [0.01 * float((0.3 * weights()[:length]).norm(1)) for length in (500, 300)]
    means = {}
    for num_draws in (1, 32):
        # One step: over more iterations, even single draws average out.
        found = attacked(PGD(Linf(0.01), num_iterations=1, step_factor=1.0, num_draws=num_draws), recognizer, batch)
        means[num_draws] = ((found - batch.waveforms) @ (0.3 * weights())).tolist()
    assert all(many > 1.5 * one for one, many in zip(means[1], means[32], strict=True))
    assert all(0.8 * most < many <= most for many, most in zip(means[32], best, strict=True))


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
@pytest.mark.parametrize("threat", [Linf(0.5), L2(4.0)], ids=str)
def test_best_and_restarts_never_lose(threat: Ball, goal: object) -> None:
    """On a loss with many bumps, where the last iterate is not the best and starts differ."""
    batch, recognizer = audio_batch(SIZES, level=0.3), Waves(weights())
    last, best, one, four = (
        attained(PGD(threat, goal=goal, num_iterations=12, **options), recognizer, batch)
        for options in (
            {},
            {"keep": "best"},
            {"random_start": True},
            {"random_start": True, "num_restarts": 4},
        )
    )
    room = 1e-4
    assert all(found >= other - room for found, other in zip(best, last, strict=True))
    assert all(found >= other - room for found, other in zip(four, one, strict=True))
    assert max(np.subtract(best, last)) > room and max(np.subtract(four, one)) > room
    # From x itself, keeping the best cannot end below x.
    assert min(best) >= -room


class Waves(Linear):
    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        mask = torch.arange(waveforms.shape[1]) < lengths[:, None]
        return ((20 * waveforms + 5 * self.weights[: waveforms.shape[1]]).sin() * mask).sum(1)


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("kind", [Linf, L2, lambda size: SNR(40 - 100 * size)], ids=["Linf", "L2", "SNR"])
def test_a_larger_budget_never_attains_less(kind: type[Ball], keep: str) -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    losses = [
        attained(PGD(kind(size), num_iterations=50, keep=keep), recognizer, batch) for size in (0.0, 0.01, 0.1, 0.2)
    ]
    for smaller, larger in pairwise(losses):
        assert all(more > less - 1e-5 for less, more in zip(smaller, larger, strict=True))


def test_early_stopping_changes_nothing_for_the_others() -> None:
    batch = audio_batch((500, 400, 300, 200, 100, 1))
    # The level is chosen so that some reach it soon, some late and some never.
    recognizer = Linear(weights(), level=3.0)
    plain = PGD(Linf(0.02), num_iterations=25, step_factor=0.05)
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
    attack = PGD(Linf(0.02), random_start=True, num_restarts=3, stop_on_success=True, check_every=5)
    result = attack(recognizer, batch, seeds=seeds_of(batch))
    assert result.success.tolist() == [True, False] and result.iterations.tolist() == [5, 21]


def test_success_by_luck_does_not_stop() -> None:
    class Coin(Oracle):
        """Hears "HIGH" in half of the draws, whatever is said."""

        def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
            return waveforms.sum(1) * 0 + (seeds % 2 - 0.5)

    batch = audio_batch((50,) * 8)
    results = [
        PGD(Linf(0.01), num_iterations=3, stop_on_success=True, check_every=1, num_draws=num_draws).perturb(
            Coin(), batch, Coin().targets(batch.texts), seeds=seeds_of(batch)
        )
        for num_draws in (1, 12)
    ]
    assert results[0].iterations.min() == 1 and results[1].iterations.min() == 3


@pytest.mark.parametrize("name", ["toy_ctc", "toy_attention", "toy_transducer"])
@pytest.mark.parametrize("threat", [Linf(0.01), SNR(20.0)], ids=str)
def test_result_does_not_depend_on_neighbours(name: str, threat: Ball) -> None:
    """Defect 1 of other systems: crashes or asserts above one utterance, or of different lengths."""
    recognizer = trained(name)
    lengths = torch.tensor([*LENGTHS.tolist(), 6000])
    batch = AudioBatch(audio(lengths), lengths, (*TEXTS, "HE"), ("a", "b", "c", "d"))
    attack = PGD(threat, num_iterations=5, random_start=True, num_restarts=2, keep="best")
    together = attack(recognizer, batch, seeds=seeds_of(batch))
    for row, length in enumerate(lengths.tolist()):
        one = batch.select([row])
        alone = attack(recognizer, one, seeds=seeds_of(one))
        torch.testing.assert_close(alone.batch.waveforms[0], together.batch.waveforms[row, :length], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.loss[0], together.loss[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["toy_ctc", "toy_attention", "toy_transducer"])
def test_model_is_left_as_it_was(name: str) -> None:
    """Defects 2 and 3 of other systems: BatchNorm drifts during the attack, or the model stays in another mode."""
    recognizer = trained(name).train()
    recognizer.encoder.dropout.eval()
    recognizer.head.weight.requires_grad_(False)
    recognizer.head.bias.grad = torch.ones_like(recognizer.head.bias)
    batch = AudioBatch(audio(LENGTHS), LENGTHS, TEXTS, ("a", "b", "c"))
    before = snapshot(recognizer)
    for attack in (
        FGSM(Linf(0.01)),
        PGD(SNR(20.0), num_iterations=4, stop_on_success=True, check_every=2, random_start=True, num_restarts=2),
        PGD(L2(0.5), num_iterations=2, num_draws=2, precision="bf16-mixed"),
    ):
        result = attack(recognizer, batch, seeds=seeds_of(batch))
        assert_unchanged(before, recognizer)
        # In training mode BatchNorm and dropout would make two attacks differ.
        assert torch.equal(attacked(attack, recognizer, batch), result.batch.waveforms)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
def test_works_whatever_the_gradient_mode(grad_mode: type) -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    with grad_mode():
        found = attacked(PGD(Linf(0.01)), recognizer, batch)
    assert not found.requires_grad and torch.equal(found, attacked(PGD(Linf(0.01)), recognizer, batch))


def test_a_recogniser_that_has_learnt_breaks_with_the_budget_and_not_under_noise() -> None:
    batch, recognizer = spoken(12, seed=5), listener()
    rates, losses = [], []
    for eps in (0.0, 0.003, 0.01, 0.03, 0.1):
        result = PGD(Linf(eps))(recognizer, batch, seeds=seeds_of(batch))
        rates.append(success_rate(result))
        losses.append(result.loss)
    assert rates[0] == 0 and rates[2] > 0.5 and rates[3:] == [1, 1] and rates == sorted(rates)
    assert all((larger > smaller).all() for smaller, larger in pairwise(losses))
    for distribution in ("gaussian", "uniform", "signs"):
        noise = MatchedNoise(Linf(0.03), distribution=distribution)(recognizer, batch, seeds=seeds_of(batch))
        assert success_rate(noise) < 0.2


def test_target_is_reached() -> None:
    batch, recognizer = spoken(4, seed=5), listener()
    attack = PGD(
        Linf(0.1), goal=Target("UP GO"), num_iterations=200, step_factor=0.02, stop_on_success=True, check_every=5
    )
    result = attack(recognizer, batch, seeds=seeds_of(batch))
    reached = [row for row, heard in enumerate(result.hypotheses) if heard == "UP GO"]
    assert result.success.nonzero()[:, 0].tolist() == reached and len(reached) >= 2
    assert result.iterations[reached].max() < 200


@pytest.mark.parametrize("goal", [Untargeted(), Target("UP GO")], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("eps", [0.003, 0.01, 0.03])
def test_bf16_is_as_strong(goal: object, eps: float) -> None:
    batch, recognizer = spoken(24, seed=5), listener()
    attack = PGD(Linf(eps), goal=goal, num_iterations=15)
    exact, half = (replace(attack, precision=precision) for precision in ("32-true", "bf16-mixed"))
    exact, half = (attack(recognizer, batch, seeds=seeds_of(batch)) for attack in (exact, half))
    assert half.batch.waveforms.dtype == torch.float32
    assert not torch.equal(half.batch.waveforms, exact.batch.waveforms)
    assert success_rate(half) == pytest.approx(success_rate(exact), abs=0.1)
    assert float(half.loss.mean()) == pytest.approx(float(exact.loss.mean()), rel=0.1)


def test_names_and_columns_are_those_of_the_papers() -> None:
    targeted = Target()
    for attack, name in [
        (FGSM(Linf(0.01), goal=targeted), "FGSM targeted"),
        (FGSM(Linf(0.01)), "FGSM"),
        (PGD(Linf(0.01), goal=targeted), "PGD-7 targeted"),
        (PGD(Linf(0.01), goal=targeted, num_iterations=500), "PGD-500 targeted"),
        (PGD(SNR(30.0), num_iterations=50), "PGD-50"),
        (PGD(SNR(30.0), num_iterations=50, num_draws=16), "PGD-50 EoT-16"),
    ]:
        assert attack.name == name and attack.columns()["attack"] == name
    assert PGD(SNR(30.0), knowledge="unaware").columns() == {
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
        ({"num_iterations": 0}, "num_iterations must be at least 1"),
        ({"num_draws": 0}, "num_draws"),
        ({"check_every": 0}, "check_every"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"num_restarts": 2}, "without random_start"),
        ({"step_factor": 0.0}, "step_factor"),
        ({"step_factor": float("nan")}, "step_factor"),
        ({"max_samples": 0}, "max_samples"),
        ({"keep": "first"}, "keep must be one of last, best, found 'first'"),
        ({"precision": "16"}, "precision must be one of 32-true, bf16-mixed"),
        ({"knowledge": "some"}, "knowledge must be one of exact, straight_through, unaware"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(**{"threat": Linf(0.01), **options})


def test_fgsm_takes_one_norm() -> None:
    with pytest.raises(ValueError, match="threat must be Linf"):
        FGSM(L2(0.1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_draws"):
        FGSM(Linf(0.1), num_draws=0)


@pytest.mark.parametrize(
    "attack", [PGD(SNR(20.0, reading="snr_linf"), num_draws=4, keep="best"), FGSM(Linf(0.1))], ids=str
)
def test_described_and_built_again(attack: Attack) -> None:
    assert trust.build(describe(attack), expected=Attack) == attack
    assert hash(attack) == hash(replace(attack))


def test_default_steps_are_those_of_the_papers() -> None:
    batch, recognizer = audio_batch((500,)), Linear(weights())
    for threat, factor in [(Linf(0.01), 0.2), (L2(0.5), 0.1), (SNR(20.0), 0.1), (SNR(20.0, reading="snr_linf"), 0.1)]:
        delta = attacked(PGD(threat, num_iterations=2), recognizer, batch) - batch.waveforms
        size = delta.abs().amax(1) if threat.norm == "linf" else euclidean(delta)
        assert float(size) == pytest.approx(2 * factor * float(threat.radius(batch)), rel=1e-4)

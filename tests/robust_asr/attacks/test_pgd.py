"""FGSM and PGD against closed forms, a plain NumPy reference, and recognisers of three kinds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.threat import L2, SNR, Ball, Linf
from robust_asr.types import AudioBatch
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import (
    BALLS,
    GOALS,
    SIZES,
    Breaking,
    Linear,
    Quadratic,
    Target,
    attacked,
    attained,
    audio_batch,
    seeds_of,
    spoken,
    weights,
)
from tests.robust_asr.test_contract import LENGTHS, TEXTS, assert_unchanged, audio, snapshot, trained


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_linear_loss_moves_by_the_dual_norm(threat: Ball, goal: object, random_start: bool) -> None:
    """Max of w.d over the ball: radius * ||w||_1 in the maximum norm, radius * ||w||_2 in the Euclidean, for each length."""
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    attack = PaperPGD(threat, goal=goal, num_iterations=60, random_start=random_start)
    dual = [float(weights()[:length].norm(1 if threat.norm == "linf" else 2)) for length in SIZES]
    best = [radius * norm for radius, norm in zip(threat.radius(batch).tolist(), dual, strict=True)]
    found = attained(attack, recognizer, batch)
    assert found == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
def test_fgsm_is_its_formula_to_the_bit(goal: object) -> None:
    batch, recognizer, threat = audio_batch(SIZES, level=0.7), Linear(weights()), Linf(0.1)
    found = attacked(FGSM(threat, goal=goal), recognizer, batch)
    for row, length in enumerate(SIZES):
        one = batch.select([row])
        expected = (one.waveforms + goal.sign * threat.eps * weights()[: one.waveforms.shape[1]].sign()).clamp(-1, 1)
        expected = threat.within(expected, one)[0]
        assert torch.equal(found[row, :length], expected[:length]) and not found[row, length:].any()
    assert float(found.abs().max()) == 1


@pytest.mark.parametrize("goal", [Untargeted(), Target("UP GO")], ids=["untargeted", "targeted"])
def test_pgd_of_one_whole_step_is_fgsm_to_the_bit(goal: object) -> None:
    batch, recognizer = spoken(3, seed=5), four_words()
    one = PaperPGD(Linf(0.01), goal=goal, num_iterations=1, steps=Constant(1.0))
    assert torch.equal(attacked(one, recognizer, batch), attacked(FGSM(Linf(0.01), goal=goal), recognizer, batch))


def test_quadratic_loss_is_solved_at_the_corner_and_inside() -> None:
    batch, eps = audio_batch((400,)), 0.01
    x = batch.waveforms[0]
    # Half of the samples have their optimum inside the ball, at 0.4 eps, the others far outside.
    optimum = x + torch.where(torch.arange(400) % 2 == 0, 0.4, 50.0) * eps * weights(400).sign()
    attack = PaperPGD(Linf(eps), goal=Target(), num_iterations=60, steps=Constant(0.02))
    found = attacked(attack, Quadratic(optimum), batch)[0]
    torch.testing.assert_close(found, optimum.clamp(x - eps, x + eps), rtol=0, atol=0.02 * eps + 1e-7)
    farthest = attacked(PaperPGD(Linf(eps), num_iterations=40), Quadratic(optimum), batch)[0]
    torch.testing.assert_close(farthest, x - eps * (optimum - x).sign(), rtol=0, atol=1e-7)


class Curved(Linear):
    """sum of tanh(3 w x)^2: every step has another gradient."""

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return (3 * self.weights[: waveforms.shape[1]] * waveforms).tanh().square().sum(1)


def reference_pgd(x: np.ndarray, attack: PaperPGD) -> np.ndarray:
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
    attack = PaperPGD(threat, goal=goal, num_iterations=15)
    found = attacked(attack, Curved(weights()), batch)
    for row, length in enumerate(SIZES):
        expected = reference_pgd(batch.waveforms[row, :length].double().numpy(), attack)
        np.testing.assert_allclose(found[row, :length].numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_silence_and_the_largest_budgets(threat: Ball) -> None:
    """Defect 6 of other systems: silence gives NaN audio."""
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    batch.waveforms[1] = 0
    result = PaperPGD(threat)(recognizer, batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    refused = isinstance(threat, SNR)
    assert bool(result.notes[1]) == refused and not result.notes[0] and not result.notes[2]
    assert bool(result.batch.waveforms[1].any()) != refused
    # Asked directly, without the refusal: still no noise and no nan.
    direct = PaperPGD(threat).perturb(recognizer, batch, recognizer.targets(batch.texts), seeds=seeds_of(batch))
    assert direct.waveforms.isfinite().all() and bool(direct.waveforms[1].any()) != refused


def test_no_budget_changes_nothing_and_the_whole_box_stays_a_box() -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    for threat in (Linf(0.0), L2(0.0)):
        for attack in (PaperPGD(threat), PaperPGD(threat, random_start=True, num_restarts=2)):
            assert torch.equal(attacked(attack, recognizer, batch), batch.waveforms)
    found = attacked(FGSM(Linf(1.0)), recognizer, batch)
    assert float(found.abs().max()) <= 1


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=str)
def test_no_gradient_is_noted(threat: Ball) -> None:
    batch = audio_batch(SIZES)
    result = PaperPGD(threat)(Linear(torch.zeros(500)), batch, seeds=seeds_of(batch))
    assert torch.equal(result.batch.waveforms, batch.waveforms)
    assert set(result.notes) == {"its gradient was zero in every iteration"}


@pytest.mark.parametrize("threat", [Linf(0.01), L2(1.0)], ids=str)
def test_a_gradient_that_breaks_stops_one_utterance_only(threat: Ball) -> None:
    batch = audio_batch(SIZES)
    batch.waveforms[:, 0] = torch.tensor([0.0, -0.5, 0.0])
    w = weights().abs() + 1
    result = PaperPGD(threat, num_iterations=20)(Breaking(w, 0.0045), batch, seeds=seeds_of(batch))
    assert [bool(note) for note in result.notes] == [True, False, True]
    assert int(result.iterations[1]) == 20 and all(0 < int(result.iterations[row]) < 20 for row in (0, 2))
    assert result.batch.waveforms.isfinite().all() and (result.batch.waveforms[[0, 2], 0] > 0.0045).all()
    for row, stopped in enumerate(result.iterations.tolist()):
        # The gradient breaks at one sample only; none of the others moves any more.
        expected = attacked(PaperPGD(threat, num_iterations=stopped), Linear(w), batch)[row]
        torch.testing.assert_close(result.batch.waveforms[row], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
@pytest.mark.parametrize("threat", [Linf(0.5), L2(4.0)], ids=str)
def test_best_and_restarts_never_lose(threat: Ball, goal: object) -> None:
    """On a loss with many bumps, where the last iterate is not the best and starts differ."""
    batch, recognizer = audio_batch(SIZES, level=0.3), Waves(weights())
    last, best, one, four = (
        attained(PaperPGD(threat, goal=goal, num_iterations=12, **options), recognizer, batch)
        for options in (
            {},
            {"keep": "value"},
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
    stochastic = False

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        mask = torch.arange(waveforms.shape[1]) < lengths[:, None]
        return ((20 * waveforms + 5 * self.weights[: waveforms.shape[1]]).sin() * mask).sum(1)


@pytest.mark.parametrize("keep", ["last", "value"])
@pytest.mark.parametrize("kind", [Linf, L2, lambda size: SNR(40 - 100 * size)], ids=["Linf", "L2", "SNR"])
def test_a_larger_budget_never_attains_less(kind: type[Ball], keep: str) -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    losses = [
        attained(PaperPGD(kind(size), num_iterations=50, keep=keep), recognizer, batch)
        for size in (0.0, 0.01, 0.1, 0.2)
    ]
    for smaller, larger in pairwise(losses):
        assert all(more > less - 1e-5 for less, more in zip(smaller, larger, strict=True))


@pytest.mark.parametrize("name", ["toy_ctc", "toy_attention", "toy_transducer"])
@pytest.mark.parametrize("threat", [Linf(0.01), SNR(20.0)], ids=str)
def test_result_does_not_depend_on_neighbours(name: str, threat: Ball) -> None:
    """Defect 1 of other systems: crashes or asserts above one utterance, or of different lengths."""
    recognizer = trained(name)
    lengths = torch.tensor([*LENGTHS.tolist(), 6000])
    batch = AudioBatch(audio(lengths), lengths, (*TEXTS, "HE"), ("a", "b", "c", "d"))
    attack = PaperPGD(threat, num_iterations=5, random_start=True, num_restarts=2, keep="value")
    together = attack(recognizer, batch, seeds=seeds_of(batch))
    for row, length in enumerate(lengths.tolist()):
        one = batch.select([row])
        alone = attack(recognizer, one, seeds=seeds_of(one))
        torch.testing.assert_close(alone.batch.waveforms[0], together.batch.waveforms[row, :length], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.loss[0], together.loss[row], rtol=1e-5, atol=1e-5)


def has_lstm_in_half_precision() -> bool:
    """Not where oneDNN is kept from the instructions that it needs for it (ONEDNN_MAX_CPU_ISA)."""
    try:
        with torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
    except RuntimeError:
        return False
    return True


ATTACKS = {
    "fgsm": FGSM(Linf(0.01)),
    "pgd": PaperPGD(
        SNR(20.0), num_iterations=4, stop_on_success=True, check_every=2, random_start=True, num_restarts=2
    ),
    "bf16": PaperPGD(L2(0.5), num_iterations=2, num_draws=2, precision="bf16-mixed"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["toy_ctc", "toy_attention", "toy_transducer"])
def test_model_is_left_as_it_was(name: str, attack: str) -> None:
    """Defects 2 and 3 of other systems: BatchNorm drifts during the attack, or the model stays in another mode."""
    if attack == "bf16" and not has_lstm_in_half_precision():
        pytest.skip("oneDNN has no LSTM in bfloat16 here")
    recognizer = trained(name).train()
    recognizer.encoder.dropout.eval()
    recognizer.head.weight.requires_grad_(False)
    recognizer.head.bias.grad = torch.ones_like(recognizer.head.bias)
    batch = AudioBatch(audio(LENGTHS), LENGTHS, TEXTS, ("a", "b", "c"))
    before = snapshot(recognizer)
    result = ATTACKS[attack](recognizer, batch, seeds=seeds_of(batch))
    assert_unchanged(before, recognizer)
    # In training mode BatchNorm and dropout would make two attacks differ.
    assert torch.equal(attacked(ATTACKS[attack], recognizer, batch), result.batch.waveforms)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
def test_works_whatever_the_gradient_mode(grad_mode: type) -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    with grad_mode():
        found = attacked(PaperPGD(Linf(0.01)), recognizer, batch)
    assert not found.requires_grad and torch.equal(found, attacked(PaperPGD(Linf(0.01)), recognizer, batch))

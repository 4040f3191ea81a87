"""Steps in closed form, and Auto-PGD's against a plain reference of its algorithm."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from robust_asr.attacks import steps
from robust_asr.attacks.objectives import Loss
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.steps import Constant, Cosine, Halving, Steps, _checkpoints
from robust_asr.threat import L2, Ball, Linf
from robust_asr.threat.norms import euclidean
from tests.robust_asr.attacks.oracles import (
    SIZES,
    Linear,
    attacked,
    audio_batch,
    seeds_of,
    weights,
)


class Recorded(Linear):
    """sum of sin(30 w x), whose slope changes its sign often, so that steps of the radius overshoot; keeps what it was asked."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        self.stochastic = False
        self.asked: list[Tensor] = []

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        self.asked.append(waveforms.detach().clone())
        return (30 * self.weights[: waveforms.shape[1]] * waveforms).sin().sum(1)


def auto_pgd(x: np.ndarray, threat: Ball, num: int, first: float, rising: float) -> tuple[list[np.ndarray], set[str]]:
    """Algorithm 1 of Croce & Hein (2020), one utterance: the points, and which of the conditions halved a step."""
    w, eps = weights().double().numpy()[: len(x)], threat.eps

    def look(z: np.ndarray) -> tuple[float, np.ndarray]:
        return np.sin(30 * w * z).sum(), 30 * w * np.cos(30 * w * z)

    def projected(z: np.ndarray) -> np.ndarray:
        delta = z - x
        if threat.norm == "linf":
            delta = np.clip(delta, -eps, eps)
        else:
            delta = delta * min(1, eps / max(np.linalg.norm(delta), 1e-300))
        return np.clip(x + delta, -1, 1)

    hundredths = [0, 22]
    while hundredths[-1] < 100:
        hundredths.append(hundredths[-1] + max(hundredths[-1] - hundredths[-2] - 3, 6))
    checkpoints = [-(-share * num // 100) for share in hundredths if share < 100]

    points, values, previous, step = [x], [], None, first * eps
    best, summit, best_slope, reasons = x, -np.inf, None, set()
    noted_step, noted_summit = step, None
    for k in range(num):
        point = points[k]
        value, slope = look(point)
        values.append(value)
        if value > summit:
            best, summit, best_slope = point, value, slope
        noted_summit = summit if k == 0 else noted_summit
        if k in checkpoints[1:]:
            before = checkpoints[checkpoints.index(k) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(before, k))
            few, stuck = rises < rising * (k - before), step == noted_step and summit == noted_summit
            noted_step, noted_summit = step, summit
            if few or stuck:
                step /= 2
                reasons |= {"few rises"} if few else {"no new summit"}
                reasons |= {"back to the best"} if best is not point else set()
                # The next point is reached from the best one, and the next rise is counted from its value.
                point, slope, values[k] = best, best_slope, summit
        direction = np.sign(slope) if threat.norm == "linf" else slope / np.linalg.norm(slope)
        moved = projected(point + step * direction)
        if k:
            moved = projected(point + 0.75 * (moved - point) + 0.25 * (point - previous))
        previous = point
        points.append(moved)
    return points, reasons


# (ball, first step, iterations, share of rises) and what the reference must have met.
RUNS = {
    "maximum norm": (Linf(0.03), 2.0, 60, 0.75, {"few rises", "back to the best"}),
    "Euclidean norm": (L2(0.4), 2.0, 25, 0.75, {"few rises", "back to the best"}),
    "short": (Linf(0.003), 0.1, 7, 0.75, set()),
    "no new summit": (Linf(0.1), 2.0, 25, 0.25, {"no new summit"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_halving_is_algorithm_1_of_auto_pgd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threat, first, num, rising, met = RUNS[name]
    monkeypatch.setattr(steps, "_RISING", rising)
    batch = audio_batch((500,), level=0.3)
    batch = batch.replace(batch.waveforms.double())
    recognizer = Recorded(weights()).double()
    attack = PGD(threat, objective=Loss(), num_iterations=num, steps=Halving(first), keep="last")
    attack.generate(recognizer, batch, seeds=seeds_of(batch))
    points, reasons = auto_pgd(batch.waveforms[0].numpy(), threat, num, first, rising)
    assert met <= reasons
    for point, asked in zip(points, recognizer.asked[:num], strict=False):
        np.testing.assert_allclose(asked[0].numpy(), point, rtol=0, atol=1e-9)


def test_checkpoints_are_those_of_the_paper() -> None:
    assert _checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    for total in range(1, 400):
        found = _checkpoints(total)
        assert found[0] == 0 and found[-1] <= total and all(first < second for first, second in pairwise(found))
        assert found == sorted({-(-share * total // 100) for share in (0, 22, 41, 57, 70, 80, 87, 93, 99)})


@pytest.mark.parametrize("first", [0.4, 2.0])
def test_cosine_steps_in_closed_form(first: float) -> None:
    """Under a linear loss in a large ball, the perturbation grows by each step."""
    batch, recognizer, num = audio_batch((300,)), Recorded(weights()), 9
    attack = PGD(L2(0.001), objective=Loss(), num_iterations=num, steps=Cosine(first), keep="last")
    # So small a ball that the loss is linear in it, and so short a run that the first steps do not fill it.
    attack.generate(recognizer, batch, seeds=seeds_of(batch))
    sizes = [float(euclidean((asked - batch.waveforms).double())) for asked in recognizer.asked[:num]]
    shares = [first * (1 + math.cos(math.pi * k / num)) / 2 for k in range(num)]
    expected = np.minimum(np.cumsum([0.0, *shares[:-1]]), 1) * 0.001
    np.testing.assert_allclose(sizes, expected, rtol=1e-3, atol=1e-8)
    assert 0 < shares[-1] < 0.05 * first


@pytest.mark.parametrize("steps", [Constant(), Cosine(), Halving()], ids=lambda steps: steps.name or "constant")
@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=str)
def test_every_schedule_solves_a_linear_loss_alone_and_together(steps: Steps, threat: Ball) -> None:
    batch, recognizer = audio_batch(SIZES), Linear(weights())
    attack = PGD(threat, objective=Loss(), num_iterations=60, steps=steps, keep="value")
    together = attacked(attack, recognizer, batch)
    dual = [float(weights()[:length].norm(1 if threat.norm == "linf" else 2)) for length in SIZES]
    for row, length in enumerate(SIZES):
        gained = float(((together - batch.waveforms)[row, :length] * weights()[:length]).sum())
        assert gained == pytest.approx(threat.eps * dual[row], rel=1e-3)
        assert not together[row, length:].any()
        alone = attacked(attack, recognizer, batch.select([row]))[0]
        torch.testing.assert_close(alone, together[row, :length], rtol=0, atol=1e-7)


def test_halving_keeps_its_state_where_utterances_leave() -> None:
    """What is left of a batch goes on as if it had been alone."""
    batch, recognizer = audio_batch((500, 400, 300, 200)), Linear(weights(), level=3.0)
    plain = PGD(Linf(0.02), objective=Loss(), num_iterations=20, steps=Halving(0.1), keep="last")
    stopping = replace(plain, stop_on_success=True, check_every=2)
    found = stopping(recognizer, batch, seeds=seeds_of(batch))
    assert len(set(found.iterations.tolist())) > 1
    for row in (found.iterations == 20).nonzero()[:, 0].tolist():
        alone = attacked(plain, recognizer, batch.select([row]))[0]
        torch.testing.assert_close(found.batch.waveforms[row, : len(alone)], alone, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0.0), r"a step must lie in \(0, 2\] times the radius, found 0.0"),
        (lambda: Cosine(2.5), "found 2.5"),
        (lambda: Halving(-1.0), "found -1.0"),
    ],
)
def test_wrong_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

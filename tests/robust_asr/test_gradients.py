"""What ``frozen_for_attack`` keeps and restores is tested on whole recognisers in ``test_contract``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import expectation, frozen_for_attack, input_gradient, straight_through
from robust_asr.masking import length_mask
from robust_asr.models.base import Recognizer
from robust_asr.randomness import derive, keyed_normal, utterance_seeds
from robust_asr.types import TokenTargets
from tests.toys import ToyAttention, ToyCTC, ToyTransducer

LENGTHS = torch.tensor([1600, 900, 1])
SEEDS = utterance_seeds(0, ("a", "b", "c"))
NOTHING = TokenTargets(torch.zeros(3, 0, dtype=torch.long), torch.zeros(3, dtype=torch.long))


def test_gradient_of_a_known_function() -> None:
    waveforms = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    losses, gradient = input_gradient(lambda x: (x**2).sum(1), waveforms)
    assert losses.tolist() == [5.0, 25.0] and gradient.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert not losses.requires_grad and not gradient.requires_grad and not waveforms.requires_grad


def test_works_where_gradients_are_off_and_leaves_them_off() -> None:
    waveforms = torch.ones(1, 2, requires_grad=True)
    with torch.no_grad():
        _, gradient = input_gradient(lambda x: (3 * x).sum(1), waveforms)
        assert not torch.is_grad_enabled()
    assert gradient.tolist() == [[3.0, 3.0]] and waveforms.grad is None


def test_parameters_get_no_gradient() -> None:
    layer = nn.Linear(2, 1)
    input_gradient(lambda x: layer(x)[:, 0], torch.ones(1, 2))
    assert layer.weight.grad is None


def test_attack_mode_by_module() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), nn.LSTM(4, 4, num_layers=2, dropout=0.5))
    model[0].eval()
    with frozen_for_attack(model) as frozen:
        assert frozen is model
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [module.training for module in model] == [False, True, True]
    assert all(parameter.requires_grad for parameter in model.parameters()) and model[2].dropout == 0.5


def test_attack_mode_is_float32_inside_autocast() -> None:
    model, waveforms = nn.Linear(3, 3), torch.ones(1, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with frozen_for_attack(model):
            assert model(waveforms).dtype == torch.float32
        assert model(waveforms).dtype == torch.bfloat16


def test_attack_mode_nests() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    with frozen_for_attack(model):
        with frozen_for_attack(model):
            pass
        assert not model[0].training
    assert model[0].training


def audio() -> Tensor:
    values = torch.rand(3, 1600, generator=torch.Generator().manual_seed(0)) - 0.5
    return values * length_mask(LENGTHS, 1600)


class Cubic:
    """sum (x + sigma n)^3 / 3, whose gradient (x + sigma n)^2 has mean x^2 + sigma^2, variance 4 x^2 sigma^2 + 2 sigma^4.

    Counts the rows that pass through it, and the largest number of samples that did so at once.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma, self.num_rows, self.most_samples = sigma, 0, 0

    def __call__(self, waveforms: Tensor, lengths: Tensor, targets: TokenTargets, *, seeds: Tensor) -> Tensor:
        assert len(waveforms) == len(lengths) == len(targets) == len(seeds)
        self.num_rows += len(waveforms)
        self.most_samples = max(self.most_samples, waveforms.numel())
        noise = keyed_normal(seeds, lengths, waveforms.shape[1])
        return ((waveforms + self.sigma * noise) ** 3).sum(1) / 3


def test_expectation_is_the_mean_over_keyed_draws() -> None:
    waveforms, loss = audio(), Cubic(0.3)
    losses, gradient = expectation(loss, waveforms, LENGTHS, NOTHING, seeds=SEEDS, step=5, num_draws=4)
    noise = torch.stack([keyed_normal(derive(SEEDS, step=5, draw=draw), LENGTHS, 1600) for draw in range(4)])
    noisy = waveforms + 0.3 * noise
    torch.testing.assert_close(losses, (noisy**3).sum(2).mean(0) / 3)
    torch.testing.assert_close(gradient, (noisy**2).mean(0))
    assert loss.num_rows == 3 * 4, "peer defect 12: as many gradients as were asked for"
    assert not losses.requires_grad and not gradient.requires_grad


def test_gradient_of_the_mean_loss_is_the_mean_gradient() -> None:
    loss = Cubic(0.3)

    def mean_loss(values: Tensor) -> Tensor:
        draws = [loss(values, LENGTHS, NOTHING, seeds=derive(SEEDS, draw=draw)) for draw in range(5)]
        return torch.stack(draws).mean(0)

    expected = input_gradient(mean_loss, audio())
    found = expectation(loss, audio(), LENGTHS, NOTHING, seeds=SEEDS, num_draws=5)
    for pair in zip(found, expected, strict=True):
        torch.testing.assert_close(*pair)


def test_variance_falls_with_the_number_of_draws() -> None:
    sigma, num_seeds, waveforms = 0.3, 200, audio()[:1]
    expected = float((4 * waveforms**2 * sigma**2 + 2 * sigma**4).mean())
    for num_draws in (1, 4, 16):
        gradients = torch.cat(
            [
                expectation(
                    Cubic(sigma),
                    waveforms,
                    LENGTHS[:1],
                    NOTHING.select(torch.tensor([0])),
                    seeds=utterance_seeds(seed, ["a"]),
                    num_draws=num_draws,
                )[1]
                for seed in range(num_seeds)
            ]
        )
        torch.testing.assert_close(gradients.mean(0), waveforms[0] ** 2 + sigma**2, rtol=0, atol=0.12)
        assert float(gradients.var(0).mean()) == pytest.approx(expected / num_draws, rel=0.03)


def defended(toy: type[Recognizer], sigma: float) -> Recognizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Defended(GaussianNoise(sigma), toy().eval())


def test_variance_falls_for_a_smoothed_recogniser() -> None:
    recognizer = defended(ToyCTC, 0.02)
    targets = recognizer.targets(["AB", "A", ""])
    spread = {}
    for num_draws in (1, 4, 16):
        gradients = torch.stack(
            [
                expectation(
                    recognizer.loss, audio(), LENGTHS, targets, seeds=utterance_seeds(seed, "abc"), num_draws=num_draws
                )[1]
                for seed in range(100)
            ]
        )
        spread[num_draws] = gradients.var(0).sum(1)[:2]
    for num_draws in (4, 16):
        torch.testing.assert_close(spread[num_draws] * num_draws, spread[1], rtol=0.2, atol=0)


@pytest.mark.parametrize("max_samples", [1, 1600, 5000, 7 * 1600, 10**9])
def test_memory_bound_changes_nothing_but_memory(max_samples: int) -> None:
    whole, loss = Cubic(0.3), Cubic(0.3)
    expected = expectation(whole, audio(), LENGTHS, NOTHING, seeds=SEEDS, num_draws=5)
    found = expectation(loss, audio(), LENGTHS, NOTHING, seeds=SEEDS, num_draws=5, max_samples=max_samples)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert loss.num_rows == 15 and loss.most_samples <= max(max_samples, 1600)
    assert whole.most_samples == 15 * 1600


@pytest.mark.parametrize("toy", [ToyCTC, ToyAttention, ToyTransducer])
def test_memory_bound_on_recognisers(toy: type[Recognizer]) -> None:
    recognizer = defended(toy, 0.1)
    targets = recognizer.targets(["AB", "A", ""])
    settings = {"seeds": SEEDS, "num_draws": 4}
    losses, gradient = expectation(recognizer.loss, audio(), LENGTHS, targets, **settings)
    for max_samples in (1, 5 * 1600):
        found = expectation(recognizer.loss, audio(), LENGTHS, targets, **settings, max_samples=max_samples)
        torch.testing.assert_close(found[0], losses)
        torch.testing.assert_close(found[1], gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    one = torch.tensor([1])
    alone = expectation(recognizer.loss, audio()[one], LENGTHS[one], targets.select(one), seeds=SEEDS[one], num_draws=4)
    torch.testing.assert_close(alone[1], gradient[one], rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize("toy", [ToyCTC, ToyAttention, ToyTransducer])
def test_one_draw_without_noise_is_the_plain_gradient(toy: type[Recognizer]) -> None:
    recognizer = defended(toy, 0.0)
    targets = recognizer.targets(["AB", "A", ""])
    plain = input_gradient(lambda values: recognizer.loss(values, LENGTHS, targets), audio())
    found = expectation(recognizer.loss, audio(), LENGTHS, targets, seeds=SEEDS)
    assert torch.equal(found[0], plain[0]) and torch.equal(found[1], plain[1])


@pytest.mark.parametrize("name", ["num_draws", "max_samples"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"num_draws and max_samples must be at least 1, found"):
        expectation(Cubic(0.1), audio(), LENGTHS, NOTHING, seeds=SEEDS, **{name: 0})


def test_straight_through_is_exact_forwards_and_the_identity_backwards() -> None:
    # Of a size at which x + (value - x) would round.
    waveforms = (1000 * torch.randn(2, 500, generator=torch.Generator().manual_seed(0))).requires_grad_(True)
    value = (waveforms / 1e5).sin()
    weights = torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    passed = straight_through(value, waveforms)
    assert torch.equal(passed, value)
    (gradient,) = torch.autograd.grad((weights * passed**2).sum(), waveforms)
    assert torch.equal(gradient, 2 * weights * value)


def test_straight_through_needs_equal_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4\) samples became \(1, 2\)"):
        straight_through(torch.zeros(1, 2), torch.zeros(1, 4))

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_asr.defenses.noise import GaussianNoise
from robust_asr.masking import length_mask
from robust_asr.randomness import utterance_seeds
from robust_asr.storage.describe import describe

LENGTHS = torch.tensor([50_000, 30_000, 1])
SEEDS = utterance_seeds(3, ("a", "b", "c"))


def audio(size: int = 50_000) -> torch.Tensor:
    values = 2 * torch.rand(3, size, generator=torch.Generator().manual_seed(0)) - 1
    return values * length_mask(LENGTHS, size)


@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.1])
def test_noise_has_the_variance_asked_for(sigma: float) -> None:
    noisy, lengths = GaussianNoise(sigma)(audio(), LENGTHS, seeds=SEEDS)
    assert lengths is LENGTHS
    for row, length in enumerate(LENGTHS[:2].tolist()):
        noise = (noisy - audio())[row, :length]
        # Four standard errors of the standard deviation and of the mean.
        assert float(noise.std()) == pytest.approx(sigma, abs=4 * sigma / (2 * length) ** 0.5 + 1e-7)
        assert float(noise.mean()) == pytest.approx(0, abs=4 * sigma / length**0.5)
    assert bool((noisy == 0)[~length_mask(LENGTHS, 50_000)].all())


def test_audio_may_leave_the_box() -> None:
    noisy, _ = GaussianNoise(0.1)(audio(), LENGTHS, seeds=SEEDS)
    assert float(noisy.abs().max()) > 1.2


def test_noise_is_normal() -> None:
    noise, _ = GaussianNoise(1.0)(torch.zeros(1, 200_000), torch.tensor([200_000]), seeds=SEEDS[:1])
    for bound in (0.5, 1.0, 2.0, 3.0):
        expected = torch.distributions.Normal(0, 1).cdf(torch.tensor(bound))
        assert float((noise < bound).float().mean()) == pytest.approx(float(expected), abs=4 * 0.5 / 200_000**0.5)


@settings(max_examples=25)
@given(st.permutations(range(3)), st.integers(0, 300))
def test_noise_follows_the_utterance(order: list[int], padding: int) -> None:
    defense, rows = GaussianNoise(0.1), torch.tensor(order)
    together, _ = defense(audio(), LENGTHS, seeds=SEEDS)
    padded = torch.nn.functional.pad(audio()[rows], (0, padding))
    moved, _ = defense(padded, LENGTHS[rows], seeds=SEEDS[rows])
    assert torch.equal(moved[:, :50_000], together[rows]) and not moved[:, 50_000:].any()


def test_another_seed_is_other_noise_and_another_sigma_the_same_at_another_size() -> None:
    silence, defense = torch.zeros(3, 50_000), GaussianNoise(0.1)
    noise, _ = defense(silence, LENGTHS, seeds=SEEDS)
    other, _ = defense(silence, LENGTHS, seeds=utterance_seeds(4, ("a", "b", "c")))
    assert abs(float(torch.corrcoef(torch.stack([noise[0], other[0]]))[0, 1])) < 4 / 50_000**0.5
    louder, _ = GaussianNoise(0.2)(silence, LENGTHS, seeds=SEEDS)
    torch.testing.assert_close(louder, 2 * noise)


def test_gradient_is_that_of_the_identity() -> None:
    waveforms = audio().requires_grad_(True)
    noisy, _ = GaussianNoise(0.3)(waveforms, LENGTHS, seeds=SEEDS)
    (gradient,) = torch.autograd.grad((noisy * audio()).sum(), waveforms)
    assert torch.equal(gradient, audio())


def test_garbage_in_the_padding_does_not_survive() -> None:
    dirty = torch.where(length_mask(LENGTHS, 50_000), audio(), torch.nan)
    assert torch.equal(*(GaussianNoise(0.1)(values, LENGTHS, seeds=SEEDS)[0] for values in (dirty, audio())))


def test_no_noise_is_the_audio_in_its_own_type() -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        values, _ = GaussianNoise(0.0)(audio().to(dtype), LENGTHS, seeds=SEEDS)
        assert values.dtype == dtype and torch.equal(values, audio().to(dtype))


def test_without_seeds_noise_comes_from_the_global_generator() -> None:
    defense = GaussianNoise(0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (defense(audio(), LENGTHS)[0] for _ in range(2))
        torch.manual_seed(0)
        assert torch.equal(defense(audio(), LENGTHS)[0], first) and not torch.equal(first, second)
    assert not torch.equal(*(first - audio())[:2, :30_000])


@pytest.mark.parametrize("sigma", [-0.01, 1.5, float("nan"), float("inf")])
def test_a_sigma_out_of_range_is_named(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"sigma must lie in \[0, 1\], full-scale amplitude, found"):
        GaussianNoise(sigma)


def test_its_description_is_its_sigma() -> None:
    description = describe(GaussianNoise(0.02))
    assert description == {"class_path": "robust_asr.defenses.noise.GaussianNoise", "init_args": {"sigma": 0.02}}

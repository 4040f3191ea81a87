"""The spectral loss against a plain reference of its formula, alone and in padded batches.

The reference is auraloss 0.4.0's MultiResolutionSTFTLoss for one utterance, whose values are kept in GOLDEN.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robust_asr.losses import MultiResolutionSTFT, mirrored

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
LENGTHS = (9000, 6100, 4321)


def tone(length: int, *, pitch: float, level: float) -> np.ndarray:
    """The same on every machine and version."""
    time = np.arange(length) / 16_000
    return level * (np.sin(2 * np.pi * pitch * time) + 0.3 * np.sin(2 * np.pi * 3.7 * pitch * time + time * time))


def pair(length: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    clean = tone(length, pitch=200 + 90 * index, level=0.1)
    return clean + tone(length, pitch=1700 + 40 * index, level=0.02), clean


def batch() -> tuple[Tensor, Tensor, Tensor]:
    estimates, references = torch.zeros(2, len(LENGTHS), max(LENGTHS), dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        estimate, reference = pair(length, row)
        estimates[row, :length], references[row, :length] = torch.tensor(estimate), torch.tensor(reference)
    return estimates, references, torch.tensor(LENGTHS)


def reference_loss(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Frame by frame in NumPy."""
    losses = []
    for fft_size, hop, window in RESOLUTIONS:
        taps = np.zeros(fft_size)
        start = (fft_size - window) // 2
        taps[start : start + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        magnitudes = []
        for waveform in (estimate, reference):
            padded = np.pad(waveform, fft_size // 2, mode="reflect")
            places = range(0, len(padded) - fft_size + 1, hop)
            frames = np.array([np.fft.rfft(taps * padded[place : place + fft_size]) for place in places])
            magnitudes.append(np.sqrt(np.maximum(np.abs(frames) ** 2, 1e-8)))
        estimated, wanted = magnitudes
        convergence = np.linalg.norm(wanted - estimated) / np.linalg.norm(wanted)
        losses.append(convergence + np.abs(np.log(wanted) - np.log(estimated)).mean())
    return float(np.mean(losses))


GOLDEN = [0.874911622679105, 0.884128759596142, 0.7528420224537693]


def test_each_utterance_of_a_padded_batch_has_the_loss_of_the_formula() -> None:
    estimates, references, lengths = batch()
    found = MultiResolutionSTFT()(estimates, references, lengths)
    for row, length in enumerate(LENGTHS):
        assert float(found[row]) == pytest.approx(GOLDEN[row], rel=1e-9), "auraloss 0.4.0"
        # Whose window is float32, as ours.
        assert float(found[row]) == pytest.approx(reference_loss(*pair(length, row)), rel=2e-6)


def test_padding_and_what_stands_in_it_change_nothing() -> None:
    estimates, references, lengths = batch()
    loss = MultiResolutionSTFT()
    alone = [
        loss(estimates[row : row + 1, :n], references[row : row + 1, :n], lengths[row : row + 1])
        for row, n in enumerate(LENGTHS)
    ]
    wider = torch.nn.functional.pad(estimates, (0, 3000))
    wider[torch.arange(wider.shape[1]) >= lengths[:, None]] = 7.0
    padded = loss(wider, torch.nn.functional.pad(references, (0, 3000)), lengths)
    torch.testing.assert_close(torch.cat(alone), padded, rtol=1e-12, atol=0)


def test_gradient_stays_inside_and_is_finite_where_both_are_equal_or_silent() -> None:
    estimates, references, lengths = batch()
    estimates[0] = references[0]
    references[1] = 0
    estimates.requires_grad_(True)
    losses = MultiResolutionSTFT()(estimates, references, lengths)
    (gradient,) = torch.autograd.grad(losses.sum(), estimates)
    assert float(losses[0].detach()) == 0 and gradient.isfinite().all()
    assert not gradient[0].any()
    assert gradient[1].any() and not gradient[1, LENGTHS[1] :].any()
    # Batch-wide and unbounded, a silent reference costs about 1.5e5.
    assert float(losses[1].detach()) < 200


def test_gradient_is_the_derivative() -> None:
    loss = MultiResolutionSTFT((64, 32), (16, 8), (48, 32), quietest=1e-3)
    estimates, references = torch.randn(2, 2, 160, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.tensor([160, 90])
    # Small steps: the logarithm bends where a magnitude is small.
    check = {"eps": 1e-8, "atol": 1e-4, "rtol": 1e-4}
    torch.autograd.gradcheck(lambda values: loss(values, references, lengths), estimates.requires_grad_(True), **check)


@pytest.mark.parametrize("length", [1, 2, 5, 300])
def test_utterances_shorter_than_a_window(length: int) -> None:
    waveforms = torch.linspace(0.1, 0.2, length)[None]
    found = MultiResolutionSTFT()(waveforms, 2 * waveforms, torch.tensor([length]))
    assert found.isfinite().all() and float(found) > 0


def test_mirroring_is_numpys() -> None:
    values = torch.arange(1.0, 8.0).repeat(3, 1)
    lengths = torch.tensor([7, 4, 1])
    found = mirrored(values, lengths, 5)
    for row, length in enumerate(lengths.tolist()):
        expected = np.pad(values[row, :length].numpy(), 5, mode="reflect")
        assert found[row, : length + 10].tolist() == expected.tolist()
        assert not found[row, length + 10 :].any()


def test_same_under_autocast() -> None:
    estimates, references, lengths = (value.float() if value.is_floating_point() else value for value in batch())
    loss = MultiResolutionSTFT()
    plain = loss(estimates, references, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(estimates, references, lengths), plain)


@pytest.mark.parametrize(
    "arguments",
    [
        {"hops": (120, 240)},
        {"fft_sizes": (), "hops": (), "windows": ()},
        {"windows": (600, 4096, 240)},
        {"hops": (0, 240, 50)},
        {"quietest": 0.0},
    ],
)
def test_settings_are_checked(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"fft_sizes|resolution|quietest"):
        MultiResolutionSTFT(**arguments)

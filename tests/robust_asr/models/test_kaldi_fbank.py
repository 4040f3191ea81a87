"""Oracles: torchaudio's and lhotse's filter banks; finite differences."""

from __future__ import annotations

import pytest
import torch
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from torch import Tensor
from torchaudio.compliance.kaldi import fbank

from robust_asr.models.kaldi_fbank import KaldiFbank

LENGTHS = [16_000, 9_037, 4_000, 16_079, 560]


def _audio(length: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + length)
    time = torch.arange(length) / 16_000
    return 0.2 * torch.sin(3_000 * time * (1 + time)) + 0.05 * torch.randn(length, generator=generator)


def _batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    rows = [_audio(length) for length in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


def _torchaudio(waveform: Tensor, **options: float) -> Tensor:
    options = {"num_mel_bins": 80, "high_freq": -400.0, **options}
    return fbank(waveform[None], dither=0.0, energy_floor=0.0, snip_edges=False, sample_frequency=16_000.0, **options)


def test_batch_is_torchaudio_one_by_one():
    features, frame_lengths = KaldiFbank()(*_batch(LENGTHS))
    for row, length in enumerate(LENGTHS):
        expected = _torchaudio(_audio(length))
        assert frame_lengths[row] == len(expected)
        torch.testing.assert_close(features[row, : len(expected)], expected, rtol=0, atol=1e-3)
        assert not features[row, len(expected) :].any()


def test_other_bands_are_torchaudios():
    features, _ = KaldiFbank(num_mels=40, low_freq=100.0, high_freq=7_000.0, preemphasis=0.5)(*_batch([8_000]))
    options = {"num_mel_bins": 40, "low_freq": 100.0, "high_freq": 7_000.0, "preemphasis_coefficient": 0.5}
    torch.testing.assert_close(features[0], _torchaudio(_audio(8_000), **options), rtol=0, atol=1e-3)


def test_lhotse_agrees_and_so_does_its_gradient():
    ours, theirs = (_audio(16_000).requires_grad_() for _ in range(2))
    features, _ = KaldiFbank()(ours[None], torch.tensor([16_000]))
    expected = Wav2LogFilterBank()(theirs[None])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-3)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    for value in (features, expected):
        (value * weights).sum().backward()
    assert float((ours.grad - theirs.grad).norm() / theirs.grad.norm()) < 1e-3


@pytest.mark.parametrize("length", [1, 60, 79, 80, 159, 161, 400])
def test_shorter_than_a_window(length: int):
    waveforms = torch.nn.functional.pad(_audio(length)[None], (0, 700), value=torch.nan)
    lengths = torch.tensor([length])
    features, frame_lengths = KaldiFbank()(waveforms, lengths)
    alone, _ = KaldiFbank()(_audio(length)[None], lengths)
    assert frame_lengths.item() == max((length + 80) // 160, 1) == alone.shape[1]
    torch.testing.assert_close(features[:, : alone.shape[1]], alone, rtol=0, atol=1e-5)
    if length >= 400:
        # torchaudio refuses what is shorter than a window.
        torch.testing.assert_close(alone[0], _torchaudio(_audio(length)), rtol=0, atol=1e-3)


def test_padding_is_not_heard():
    clean, lengths = _batch(LENGTHS)
    dirty = torch.nn.functional.pad(clean, (0, 3_000))
    dirty = torch.where(torch.arange(dirty.shape[1]) < lengths[:, None], dirty, torch.nan)
    features, frame_lengths = KaldiFbank()(clean, lengths)
    longer, same_lengths = KaldiFbank()(dirty, lengths)
    assert torch.equal(frame_lengths, same_lengths)
    torch.testing.assert_close(longer[:, : features.shape[1]], features, rtol=0, atol=1e-5)
    assert not longer[:, features.shape[1] :].any()


def test_gradient_is_that_of_finite_differences():
    front_end = KaldiFbank(num_mels=12).double()
    waveform = _audio(700).double()[None].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: front_end(values, torch.tensor([700]))[0], waveform, atol=1e-4, fast_mode=True
    )


def test_silence_has_a_finite_gradient():
    waveforms = torch.zeros(1, 4_000, requires_grad=True)
    features, _ = KaldiFbank()(waveforms, torch.tensor([4_000]))
    features.sum().backward()
    assert features.isfinite().all() and waveforms.grad.isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"num_mels": 0}, {"low_freq": 7_900.0}, {"high_freq": 9_000.0}, {"energy_floor": 0.0}]
)
def test_a_value_out_of_range_is_named(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KaldiFbank(**wrong)


def test_built_without_memory():
    with torch.device("meta"):
        assert KaldiFbank().filters.is_meta

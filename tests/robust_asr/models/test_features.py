import math

import pytest
import torch

from robust_asr.models.features import LogMel, normalize_utterance


def _speech(num_samples: int, *, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def test_a_frame_is_the_log_of_the_filtered_power_of_its_windowed_samples():
    front_end = LogMel(num_mels=20).double()
    waveform = _speech(4_000).double()
    features, _ = front_end(waveform[None], torch.tensor([4_000]))
    frame, centre = 7, 7 * 160
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(400, dtype=torch.float64) / 400)
    samples = torch.zeros(512, dtype=torch.float64)
    samples[56:456] = waveform[centre - 200 : centre + 200] * window
    turns = torch.outer(torch.arange(257), torch.arange(512)).double() * (-2j * math.pi / 512)
    power = (turns.exp() @ samples.to(torch.complex128)).abs().square()
    expected = (front_end.filters @ power + front_end.energy_floor).log()
    torch.testing.assert_close(features[0, frame], expected, atol=1e-6, rtol=1e-6)


def test_a_tone_is_loudest_in_the_bin_of_its_frequency():
    front_end = LogMel(num_mels=40)
    tone = 0.1 * torch.sin(2 * math.pi * 1_000 * torch.arange(16_000) / 16_000)
    features, _ = front_end(tone[None], torch.tensor([16_000]))
    loudest = int(features[0, 50].argmax())
    hertz = torch.linspace(0, 8_000, 257)
    centre = float((front_end.filters[loudest] * hertz).sum() / front_end.filters[loudest].sum())
    assert abs(centre - 1_000) < 60


def test_ten_times_the_amplitude_adds_log_one_hundred():
    front_end = LogMel(energy_floor=1e-12)
    waveforms = torch.stack([_speech(8_000), 10 * _speech(8_000)])
    features, frame_lengths = front_end(waveforms, torch.tensor([8_000, 8_000]))
    middle = features[:, 2:-2]
    torch.testing.assert_close(middle[1] - middle[0], torch.full_like(middle[0], math.log(100)), atol=1e-3, rtol=0)
    assert frame_lengths.tolist() == [51, 51]


@pytest.mark.parametrize("length", [0, 1, 159, 160, 320, 1_601, 5_000])
def test_frames_do_not_depend_on_padding_or_on_what_lies_in_it(length: int):
    front_end = LogMel(num_mels=24)
    alone, frame_lengths = front_end(_speech(length)[None], torch.tensor([length]))
    waveforms = torch.full((2, 6_000), torch.nan)
    waveforms[0, :length], waveforms[1] = _speech(length), _speech(6_000, seed=1)
    batch, batch_lengths = front_end(waveforms, torch.tensor([length, 6_000]))
    num_frames = length // 160 + 1
    assert frame_lengths.tolist() == [num_frames] and batch_lengths[0] == num_frames == alone.shape[1]
    torch.testing.assert_close(batch[0, :num_frames], alone[0], atol=1e-5, rtol=1e-5)
    assert not batch[0, num_frames:].any()


def test_silence_has_a_finite_gradient_and_faint_noise_one_that_is_not_zero():
    front_end = LogMel()
    for waveforms, nonzero in ((torch.zeros(1, 3_200), False), (1e-5 * _speech(3_200)[None], True)):
        waveforms.requires_grad_(True)
        features, frame_lengths = front_end(waveforms, torch.tensor([3_200]))
        (gradient,) = torch.autograd.grad(normalize_utterance(features, frame_lengths).square().sum(), waveforms)
        assert gradient.isfinite().all() and bool(gradient.any()) == nonzero


def test_mixed_precision_does_not_reach_the_energies():
    front_end, waveforms = LogMel(), torch.stack([1e-4 * _speech(3_200), _speech(3_200)])
    lengths = torch.tensor([3_200, 3_200])
    with torch.autocast("cpu", dtype=torch.float16):
        mixed, _ = front_end(waveforms, lengths)
    assert torch.equal(mixed, front_end(waveforms, lengths)[0])


def test_normalisation_is_the_mean_and_variance_of_the_valid_frames():
    features = 3 + 2 * torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    normal = normalize_utterance(features, torch.tensor([50, 30]), eps=0.0)
    for row, length in enumerate((50, 30)):
        valid = features[row, :length]
        expected = (valid - valid.mean(0)) / valid.std(0, correction=0)
        torch.testing.assert_close(normal[row, :length], expected, atol=1e-5, rtol=1e-5)
    assert not normal[1, 30:].any()


def test_one_frame_normalises_to_zero():
    assert not normalize_utterance(torch.full((1, 1, 4), 5.0), torch.tensor([1])).any()


@pytest.mark.parametrize("arguments", [{"num_mels": 0}, {"hop": 0.0}, {"hop": 0.05}, {"energy_floor": 0.0}])
def test_arguments_out_of_range_are_refused(arguments: dict):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LogMel(**arguments)

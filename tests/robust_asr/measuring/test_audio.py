"""Stored audio lies inside the ball that its attack was given, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robust_asr.measuring.audio import quantized, write_flac
from robust_asr.threat import SNR, Ball, Linf
from robust_asr.types import AudioBatch

GRID = 2.0**23
NUM = 200


def clean_audio(seed: int, bits: int | None) -> AudioBatch:
    """Samples of all sizes, on the grid of so many bits or on none; full scale is among them."""
    generator = np.random.default_rng(seed)
    samples = generator.uniform(-1, 1, NUM) * 10.0 ** generator.uniform(-6, 0, NUM)
    samples[:2] = 1, -1
    samples = samples if bits is None else np.round(samples * 2.0 ** (bits - 1)) / 2.0 ** (bits - 1)
    waveform = torch.from_numpy(samples.astype(np.float32))[None]
    return AudioBatch(waveform, torch.tensor([NUM]), ("",), ("a",))


def attacked(threat: Ball, batch: AudioBatch, seed: int) -> Tensor:
    """Most samples at the bound, some inside it, as float32 has them."""
    generator = torch.Generator().manual_seed(seed)
    direction = (3 * torch.randn(1, NUM, generator=generator)).clamp(-1, 1)
    rounded = batch.waveforms + threat.project(threat.radius(batch)[:, None] * direction, batch)
    return threat.within(rounded, batch)


def distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


@given(st.integers(0, 10**6), st.floats(-6, 0), st.sampled_from([16, 24, None]))
def test_what_is_stored_is_inside_the_ball(seed: int, exponent: float, bits: int | None) -> None:
    eps = 10.0**exponent
    batch = clean_audio(seed, bits)
    adversarial = attacked(Linf(eps), batch, seed)
    assert distance(adversarial, batch.waveforms) <= eps
    before, after = quantized(batch.waveforms, batch.waveforms), quantized(adversarial, batch.waveforms)
    assert distance(after, before) <= eps
    # Where the clean sample is on no grid, neither need there be any number of the grid as near to it as eps.
    assert distance(after, batch.waveforms) <= eps or (bits is None and eps < 2 / GRID)
    for stored in (before, after):
        assert torch.equal((GRID * stored.double()).round(), GRID * stored.double()) and float(stored.max()) < 1
        assert not (stored.signbit() & (stored == 0)).any(), "a file holds no negative zero"
    assert distance(after, adversarial) <= 1.5 / GRID


@given(st.integers(0, 10**6), st.floats(0, 60), st.sampled_from(["snr_linf", "maxsnr_linf"]))
def test_a_bound_that_depends_on_the_audio_is_exact_too(seed: int, snr_db: float, reading: str) -> None:
    threat, batch = SNR(snr_db, reading=reading), clean_audio(seed, 16)
    radius = float(threat.radius(batch.replace(batch.waveforms.double())))
    assert distance(attacked(threat, batch, seed), batch.waveforms) <= radius


def test_rounding_inwards_changes_nothing_else() -> None:
    batch = clean_audio(0, 16)
    adversarial = (batch.waveforms + 1e-3 * torch.randn(1, NUM, generator=torch.Generator().manual_seed(0))).clamp(
        -1, 1
    )
    inside = Linf(0.1).within(adversarial, batch)
    assert torch.equal(inside, adversarial)


def test_a_file_holds_what_was_rounded(tmp_path: Path) -> None:
    batch = clean_audio(3, 16)
    stored = quantized(attacked(Linf(1e-3), batch, 3), batch.waveforms)
    write_flac(tmp_path / "a.flac", stored[0], 16_000)
    assert torch.equal(torch.from_numpy(soundfile.read(tmp_path / "a.flac", dtype="float32")[0]), stored[0])

"""Spectrograms: a tone stands in its band, levels are decibels, and the image is a PNG bit for bit."""

from __future__ import annotations

import math
import struct
import zlib

import pytest
import torch

from robust_asr.report.spectrogram import NUM_LEVELS, RANGE_DB, levels, png, power_spectrogram

RATE = 16000


def tone(frequency: float, *, amplitude: float = 0.5, seconds: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("frequency", [500, 2000, 4000, 7500])
def test_a_tone_stands_in_its_band(frequency):
    power = power_spectrogram(tone(frequency), sample_rate=RATE)
    assert power.shape == (96, 126)
    assert abs(int(power.mean(1).argmax()) - frequency / (RATE / 2) * 96) <= 1


def test_ten_times_the_amplitude_is_twenty_decibels():
    loud, soft = (power_spectrogram(tone(1000, amplitude=a), sample_rate=RATE) for a in (0.5, 0.05))
    assert 10 * math.log10(float(loud.sum() / soft.sum())) == pytest.approx(20, abs=1e-4)


def test_mean_power_is_that_of_white_noise_in_every_band():
    """E|X|^2 = variance * sum of the squared window, so that the mean is the variance."""
    noise = 0.1 * torch.randn(20 * RATE, generator=torch.Generator().manual_seed(0))
    power = power_spectrogram(noise, sample_rate=RATE, height=8)
    assert power.mean(1) == pytest.approx(torch.full((8,), 0.01).double(), rel=0.05)


@pytest.mark.parametrize(("length", "rate", "columns"), [(1, 16000, 1), (100, 8000, 2), (RATE * 60, RATE, 240)])
def test_any_length_has_at_most_the_asked_width(length, rate, columns):
    assert power_spectrogram(torch.ones(length), sample_rate=rate).shape == (96, columns)


def test_levels_are_even_steps_down_from_the_loudest():
    power = 10 ** (-torch.tensor([0.0, 1.0, 40.0, 79.0, 81.0, 300.0], dtype=torch.float64) / 10)
    step = RANGE_DB / NUM_LEVELS
    assert levels(power, loudest=1.0).tolist() == [
        NUM_LEVELS - 1,
        NUM_LEVELS - 1,
        NUM_LEVELS // 2,
        int(1 // step),
        0,
        0,
    ]
    assert levels(torch.zeros(2), loudest=1.0).tolist() == [0, 0]


def chunks(content: bytes) -> dict[bytes, bytes]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    found, place = {}, 8
    while place < len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + size]
        assert struct.unpack(">I", content[place + 8 + size : place + 12 + size]) == (zlib.crc32(kind + body),)
        found[kind], place = body, place + 12 + size
    return found


def test_an_image_decodes_to_its_levels_low_frequencies_at_the_bottom():
    image = torch.randint(NUM_LEVELS, (5, 7), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found = chunks(png(image))
    assert list(found) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", found[b"IHDR"]) == (7, 5, 8, 3, 0, 0, 0)
    rows = torch.frombuffer(bytearray(zlib.decompress(found[b"IDAT"])), dtype=torch.uint8).view(5, 8)
    assert (rows[:, 0] == 0).all() and torch.equal(rows[:, 1:].flip(0), image)


def test_lightness_rises_with_the_level():
    palette = torch.tensor(list(chunks(png(torch.zeros(1, 1, dtype=torch.uint8)))[b"PLTE"])).view(NUM_LEVELS, 3) / 255
    linear = torch.where(palette <= 0.04045, palette / 12.92, ((palette + 0.055) / 1.055) ** 2.4)
    luminance = linear @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (luminance.diff() > 0).all()

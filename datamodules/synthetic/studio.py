"""The recording of speech: resampling, a microphone's colour, a room, noise, a level."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16_000


def recorded(speech: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Speech as one of many microphones in one of many rooms would have recorded it.

    Everything is one product in the frequency domain, so the resampling is exact, and room and microphone cost no transform of
    their own.

    Shape: (T,) int16 at ``rate`` hertz -> (T',) float in [-1, 1] at 16 kHz.
    """
    speech = _trimmed(speech.astype(np.float64) / 2**15)
    before, after = generator.uniform(0.05, 0.3, 2)
    speech = np.concatenate([np.zeros(round(before * rate)), speech, np.zeros(round(after * rate))])
    num_samples = len(speech) * SAMPLE_RATE // rate
    old, new = _transform_sizes(len(speech) + rate // 4, rate)
    frequencies = np.fft.rfftfreq(new, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(speech, old)[: len(frequencies)]
    spectrum = spectrum * _colour(frequencies, generator) * _room(new, generator)
    spectrum = spectrum + _noise(frequencies, np.sqrt(np.mean(np.abs(spectrum) ** 2)), generator)
    signal = np.fft.irfft(spectrum, new)[:num_samples]
    rms = np.exp(generator.uniform(np.log(0.02), np.log(0.08)))
    signal *= rms / np.sqrt(np.mean(signal**2))
    return signal * min(1.0, 0.95 / np.abs(signal).max())


def _trimmed(speech: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(speech) > 0.005)
    return speech[loud[0] : loud[-1] + 1] if len(loud) else speech


def _transform_sizes(num_samples: int, rate: int) -> tuple[int, int]:
    """Lengths of the same duration at both rates whose Fourier transforms are fast."""
    step = np.gcd(rate, SAMPLE_RATE)
    blocks = -(-num_samples * step // rate)
    while not _is_smooth(blocks):
        blocks += 1
    # An even number of samples: the bins of a real transform then agree at both rates.
    blocks += blocks % 2
    return int(blocks * rate // step), int(blocks * SAMPLE_RATE // step)


def _is_smooth(number: int) -> bool:
    for factor in (2, 3, 5, 7):
        while number % factor == 0:
            number //= factor
    return number == 1


def _colour(frequencies: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A microphone: gains that wander by a few decibels, and sometimes a narrow band."""
    knots = np.array([0.0, 150, 400, 1000, 2500, 5000, 8000])
    gains = generator.normal(0, 2.5, len(knots))
    if generator.random() < 0.3:
        gains[-2:] -= generator.uniform(3, 15, 2)
    gains[0] -= generator.uniform(5, 30)
    return 10 ** (np.interp(frequencies, knots, gains) / 20)


def _room(size: int, generator: np.random.Generator) -> np.ndarray | float:
    if generator.random() < 0.4:
        return 1.0
    decay = generator.uniform(0.08, 0.4)
    time = np.arange(int(min(decay, 0.25) * SAMPLE_RATE)) / SAMPLE_RATE
    tail = generator.normal(0, 1, len(time)) * 10 ** (-3 * time / decay)
    tail[: int(generator.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0
    tail *= 10 ** (-generator.uniform(3, 15) / 20) / np.linalg.norm(tail)
    tail[0] = 1.0
    return np.fft.rfft(tail, size)


def _noise(frequencies: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray | float:
    """Stationary noise between white and brown, 12 to 45 dB below the speech, in four of five recordings."""
    if generator.random() < 0.2:
        return 0.0
    shape = np.maximum(frequencies, 60.0) ** -generator.uniform(0, 1)
    parts = generator.normal(0, 1, (2, len(frequencies))) * shape
    noise = parts[0] + 1j * parts[1]
    return noise * (level * 10 ** (-generator.uniform(12, 45) / 20) / np.sqrt(np.mean(np.abs(noise) ** 2)))

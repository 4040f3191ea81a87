"""Spectrograms as small images, in which the audible part of a perturbation can be seen."""

from __future__ import annotations

import struct
import zlib

import torch
from torch import Tensor

NUM_LEVELS = 32
RANGE_DB = 80.0
# Dark blue over violet and orange to pale yellow: lightness rises all the way, so that grey and colour-blind eyes read it too.
_ANCHORS = ((6, 8, 28), (58, 22, 96), (130, 34, 106), (198, 62, 74), (238, 120, 42), (250, 188, 62), (252, 248, 206))


def power_spectrogram(waveform: Tensor, *, sample_rate: int, width: int = 240, height: int = 96) -> Tensor:
    """Mean power in ``height`` bands of equal width up to half the sample rate, in at most ``width`` stretches of time.

    Windows of about 32 ms (Hann), a quarter of a window apart.

    Shape: (T,) -> (height, at most width), low frequencies first.
    """
    size = max(2 ** round(torch.log2(torch.tensor(0.032 * sample_rate)).item()), 16)
    window = torch.hann_window(size, dtype=torch.float64)
    stft = torch.stft(
        waveform.double(), size, hop_length=size // 4, window=window, pad_mode="constant", return_complex=True
    )
    power = stft.abs().square() / window.square().sum()
    return torch.nn.functional.adaptive_avg_pool2d(power[None], (height, min(width, power.shape[1])))[0]


def levels(power: Tensor, *, loudest: float) -> Tensor:
    """Power in dB below ``loudest``, in ``NUM_LEVELS`` steps over ``RANGE_DB``. Shape: any -> the same, uint8."""
    decibel = 10 * (power.clamp(min=1e-30) / max(loudest, 1e-30)).log10()
    return ((decibel / RANGE_DB + 1) * NUM_LEVELS).floor().clamp(0, NUM_LEVELS - 1).to(torch.uint8)


def png(image: Tensor) -> bytes:
    """A PNG file of levels. Shape: (rows, columns) uint8 below ``NUM_LEVELS``, the lowest row first."""
    rows, columns = image.shape
    # Each row begins with its filter: none.
    lines = torch.cat([torch.zeros(rows, 1, dtype=torch.uint8), image.flip(0)], dim=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"PLTE", _palette()),
        (b"IDAT", zlib.compress(lines.numpy().tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _palette() -> bytes:
    anchors = torch.tensor(_ANCHORS, dtype=torch.float64).T[None]
    ramp = torch.nn.functional.interpolate(anchors, size=NUM_LEVELS, mode="linear", align_corners=True)
    return bytes(ramp[0].T.round().int().flatten().tolist())

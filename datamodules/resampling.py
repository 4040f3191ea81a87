"""Sample rates and speeds."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample


@lru_cache(maxsize=64)
def _kernel(old: int, new: int) -> tuple[Tensor, int, int, int]:
    design = Resample(old, new)
    old, new = old // design.gcd, new // design.gcd
    return design.kernel[:, 0].T.contiguous(), design.width, old, new


def resample(waveform: Tensor, old: int, new: int) -> Tensor:
    """torchaudio's windowed-sinc resampling as one matrix product, five times as fast on short signals.

    Shape: (T,) -> (ceil(new T / old),). Clamped to [-1, 1]: interpolation overshoots a full-scale signal.
    Units: old and new in hertz, or any numbers of their ratio.
    """
    if old == new:
        return waveform
    kernel, width, old, new = _kernel(old, new)
    length = -(-new * len(waveform) // old)
    frames = torch.nn.functional.pad(waveform, (width, width + old)).unfold(0, len(kernel), old)
    return (frames @ kernel).reshape(-1)[:length].clamp_(-1, 1)


def at_speed(waveform: Tensor, speed: float) -> Tensor:
    """Played ``speed`` times as fast, pitch included, as Kaldi and sox do. Shape: (T,) -> (ceil(T / speed),)."""
    return resample(waveform, round(100 * speed), 100)

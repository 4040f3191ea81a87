"""Norms of perturbations, per utterance, with the projections, steepest directions and decibel ratios that belong to them.

Legend: B utterances, T samples. Values are zero in the padding, so no function here needs lengths.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


def maximum(values: Tensor) -> Tensor:
    """The largest magnitude of each row. Shape: (B, T) -> (B,)."""
    return values.abs().amax(1) if values.shape[1] else values.new_zeros(len(values))


def euclidean(values: Tensor) -> Tensor:
    """The Euclidean norm of each row. Shape: (B, T) -> (B,)."""
    # torch's float32 norm adds sample after sample and is off by 2e-4 after 20 s of audio; ``sum`` adds pairwise.
    return values.square().sum(1).sqrt()


def project_linf(delta: Tensor, radius: Tensor) -> Tensor:
    """The nearest perturbation with no sample above the utterance's radius. Shape: (B, T), (B,) -> (B, T)."""
    return torch.minimum(torch.maximum(delta, -radius[:, None]), radius[:, None])


def project_l2(delta: Tensor, radius: Tensor) -> Tensor:
    """The nearest perturbation of a Euclidean norm up to the utterance's radius. Shape: (B, T), (B,) -> (B, T)."""
    return delta * shrinkage(delta, radius)


def shrinkage(delta: Tensor, radius: Tensor) -> Tensor:
    """The factor, at most 1, that brings the Euclidean norm down to the radius. Shape: (B, T), (B,) -> (B, 1)."""
    return (radius / _above_zero(euclidean(delta))).clamp(max=1)[:, None]


def scaled_to(values: Tensor, radius: Tensor, *, norm: Norm) -> Tensor:
    """Each row scaled until its norm is the radius; rows of zeros stay. Shape: (B, T), (B,) -> (B, T)."""
    size = maximum(values) if norm == "linf" else euclidean(values)
    return values / _above_zero(size)[:, None] * radius[:, None]


def steepest(gradient: Tensor, *, norm: Norm) -> tuple[Tensor, Tensor]:
    """The step of norm 1 that raises a linear loss most, for each utterance: the signs, or the normalised gradient.

    The direction is right for a gradient of any finite size, even if its square would overflow or underflow float32.

    Shape: (B, T) -> directions (B, T), largest magnitude of each gradient (B,). If the magnitude is 0, the direction is 0. If it
    is not finite, the direction is undefined, and the caller must not take a step.
    """
    peak = maximum(gradient)
    if norm == "linf":
        return gradient.sign(), peak
    direction = gradient / _above_zero(peak)[:, None]
    return direction.div_(_above_zero(euclidean(direction))[:, None]), peak


def decibels(signal: Tensor, noise: Tensor) -> Tensor:
    """Ratio of two amplitudes in decibels: infinite if the noise is zero, nan if both are. Shape: (B,), (B,) -> (B,) dB."""
    return 20 * (signal / noise).log10()


def _above_zero(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny)

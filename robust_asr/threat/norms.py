"""Norms of perturbations, per utterance, and what follows from them: projections, steepest directions, ratios in decibels.

Legend: B utterances, T samples. Values are zero in the padding, so that no function here needs lengths.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


def maximum(values: Tensor) -> Tensor:
    """Shape: (B, T) -> (B,)."""
    return values.abs().amax(1) if values.shape[1] else values.new_zeros(len(values))


def euclidean(values: Tensor) -> Tensor:
    """Shape: (B, T) -> (B,)."""
    # A sum of squares adds in a tree; torch's float32 norm adds in a line and is off by 2e-4 after 20 s of audio.
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
    found = maximum(values) if norm == "linf" else euclidean(values)
    return values / _above_zero(found)[:, None] * radius[:, None]


def steepest(gradient: Tensor, *, norm: Norm) -> tuple[Tensor, Tensor]:
    """Per utterance, the step of norm 1 that raises a linear loss most: the signs, or the normalised gradient.

    A gradient of any finite size has its direction, also one whose square would leave float32.

    Shape: (B, T) -> directions (B, T), largest magnitude of each gradient (B,). Where that is 0, the direction is 0; where
    it is not finite, there is no direction, and the caller takes no step.
    """
    peak = maximum(gradient)
    if norm == "linf":
        return gradient.sign(), peak
    direction = gradient / _above_zero(peak)[:, None]
    return direction.div_(_above_zero(euclidean(direction))[:, None]), peak


def decibels(signal: Tensor, noise: Tensor) -> Tensor:
    """Ratio of two amplitudes: infinite without noise, nan without both. Shape: (B,), (B,) -> (B,) dB."""
    return 20 * (signal / noise).log10()


def _above_zero(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny)

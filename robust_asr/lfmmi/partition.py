"""Common parts of numerator and denominator: reversed time, and the gradient from the forward-backward recursion.

Legend: B utterances, F frames, S states, V labels (blank 0, then phones).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def num_directions(log_probs: Tensor) -> int:
    """2 if a gradient is needed, else 1: the recursion backwards in time is needed for the gradient only."""
    return 2 if log_probs.requires_grad and torch.is_grad_enabled() else 1


def both_ways(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """Each utterance in forward and in reversed order of its frames; the padding stays at the end.

    Shape: values (B, F, S) -> (2, B, F, S).
    """
    return torch.stack([values, turned_back(values, frame_lengths)])


def turned_back(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """Each utterance with its frames in reversed order. Shape: values (B, F, S), frame_lengths (B,) -> (B, F, S)."""
    frames = torch.arange(values.shape[1], device=values.device)
    turned = torch.where(frames < frame_lengths[:, None], frame_lengths[:, None] - 1 - frames, frames)
    return values.gather(1, turned[:, :, None].expand_as(values))


def last_frame(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """The values at the last frame of each utterance. Shape: values (B, F, S), frame_lengths (B,) -> (B, S)."""
    return values[torch.arange(len(values), device=values.device), frame_lengths - 1]


class WithOccupancies(torch.autograd.Function):
    """A log partition function that takes its gradient from given occupancies.

    Its derivative in a log-probability is the occupancy: the expected number of times that a path uses that log-probability.
    This holds for any sum over paths of products of probabilities. The forward-backward recursion computes the occupancies
    anyway, so autograd need not record its steps.

    Shape: log_probs (B, F, V), value (B,), occupancies (B, F, V), or None if no gradient is needed -> value (B,).
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, value: Tensor, occupancies: Tensor | None) -> Tensor:
        if occupancies is not None:
            ctx.save_for_backward(occupancies.to(log_probs.dtype))
        return value.to(log_probs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (occupancies,) = ctx.saved_tensors
        return occupancies * gradient[:, None, None], None, None

"""What the numerator and the denominator share: time turned back, and gradients that are occupancies.

Legend: B utterances, F frames, S states, V labels (blank 0, then phones).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def num_directions(log_probs: Tensor) -> int:
    """The recursion back in time is for the gradient alone: 2 where one is wanted, else 1."""
    return 2 if log_probs.requires_grad and torch.is_grad_enabled() else 1


def both_ways(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """Each utterance from its first frame on, and from its last frame back; the padding stays where it is.

    Shape: values (B, F, S) -> (2, B, F, S).
    """
    return torch.stack([values, turned_back(values, frame_lengths)])


def turned_back(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """Shape: values (B, F, S), frame_lengths (B,) -> (B, F, S)."""
    frames = torch.arange(values.shape[1], device=values.device)
    turned = torch.where(frames < frame_lengths[:, None], frame_lengths[:, None] - 1 - frames, frames)
    return values.gather(1, turned[:, :, None].expand_as(values))


def last_frame(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """Shape: values (B, F, S), frame_lengths (B,) -> (B, S)."""
    return values[torch.arange(len(values), device=values.device), frame_lengths - 1]


class WithOccupancies(torch.autograd.Function):
    """A log partition function whose derivative by a log-probability is the expected number of times that it is used.

    The identity holds for any sum over paths of products of the probabilities along them, so the backward pass needs what
    the forward-backward recursion knows anyway, and no tape of its steps.

    Shape: log_probs (B, F, V), value (B,), occupancies (B, F, V), or None where no gradient is wanted -> value (B,).
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

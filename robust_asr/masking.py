"""Masks for batches of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """A mask that is True at positions of data and False in the padding.

    Shape: lengths (B,) -> (B, size) bool.
    """
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def masked(values: Tensor, lengths: Tensor) -> Tensor:
    """Set the padding along dimension 1 to zero.

    Zeros are written, not multiplied, so NaN and infinity in the padding become zero too.

    Shape: values (B, T, ...), lengths (B,) -> (B, T, ...).
    """
    mask = length_mask(lengths, values.shape[1])
    return values.masked_fill(~mask.reshape(mask.shape + (1,) * (values.dim() - 2)), 0)

"""Global layer normalisation that ignores the padding.

Legend: B utterances, C channels, F frames.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_FLOOR = 1e-8


class GlobalLayerNorm(nn.Module):
    """Normalisation over the channels and the valid frames of each utterance; zero in the padding.

    For an utterance without padding it is ``torch.nn.GroupNorm(1, C)``. Computed in float32 at least. It keeps one tensor of the
    size of its input for the gradient, which has a closed form; torch would keep four.

    Shape: values (B, C, F), finite; valid (B, 1, F) of zeros and ones -> (B, C, F).
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        return _Normalized.apply(values, valid, self.weight[:, None], self.bias[:, None])


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, valid: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        wide = values if values.dtype == torch.float64 else values.float()
        valid = valid.to(wide.dtype)
        wide = wide * valid
        count = valid.sum((1, 2), keepdim=True) * wide.shape[1]
        mean = wide.sum((1, 2), keepdim=True) / count
        squares = torch.linalg.vector_norm((wide - mean).mul_(valid), dim=(1, 2), keepdim=True).square()
        deviation = (squares / count + _FLOOR).rsqrt()
        scale = deviation * weight
        ctx.save_for_backward(wide, valid, weight, count, mean, deviation)
        return torch.addcmul((bias - mean * scale) * valid, wide, scale).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        wide, valid, weight, count, mean, deviation = ctx.saved_tensors
        dtype, gradient = gradient.dtype, gradient.to(wide.dtype)
        to_bias = (gradient * valid).sum(2, keepdim=True)
        to_weight = deviation * ((gradient * wide).sum(2, keepdim=True) - mean * to_bias)
        along_mean = (weight * to_bias).sum(1, keepdim=True) / count
        along_scale = (weight * to_weight).sum(1, keepdim=True) / count
        constant = deviation * (mean * deviation * along_scale - along_mean)
        to_values = torch.addcmul(constant * valid, wide, -deviation.square() * along_scale)
        to_values = to_values.addcmul_(gradient, deviation * weight).mul_(valid)
        return to_values.to(dtype), None, to_weight.sum(0), to_bias.sum(0)

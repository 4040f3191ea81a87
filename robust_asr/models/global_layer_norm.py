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

    For an utterance without padding the layer equals ``torch.nn.GroupNorm(1, C)``. It computes in float32 or higher. Its gradient
    has a closed form, for which only one tensor of the input's size is saved.

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
        count = valid.sum((1, 2), keepdim=True) * wide.shape[1]
        mean = (wide * valid).sum((1, 2), keepdim=True) / count
        centred = (wide - mean).mul_(valid)
        variance = torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True).square() / count
        inverse = (variance + _FLOOR).rsqrt()
        ctx.save_for_backward(centred, valid, weight, count, inverse)
        return torch.addcmul(bias * valid, centred, inverse * weight).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        centred, valid, weight, count, inverse = ctx.saved_tensors
        dtype, gradient = gradient.dtype, gradient.to(centred.dtype)
        to_bias = (gradient * valid).sum(2, keepdim=True)
        to_weight = inverse * (gradient * centred).sum(2, keepdim=True)
        # The parts of the gradient that flow through the mean and the variance.
        through_mean = (weight * to_bias).sum(1, keepdim=True) / count
        through_variance = (weight * to_weight).sum(1, keepdim=True) / count
        to_values = torch.addcmul(-inverse * through_mean, centred, -inverse.square() * through_variance)
        to_values = to_values.addcmul_(gradient, inverse * weight).mul_(valid)
        return to_values.to(dtype), None, to_weight.sum(0), to_bias.sum(0)

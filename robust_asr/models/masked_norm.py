"""Batch normalisation for utterances of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics are computed over valid frames only; the result is zero in the padding.

    It computes in the higher precision of values and mask, so a float32 mask keeps it in float32 under mixed precision.

    Shape: values (B, C, F, ...), finite; mask (B, 1, F, ...) of zeros and ones with size 1 after F -> as values.
    """

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        values = values * mask
        mean, variance = self._statistics(values, mask) if self.training else (self.running_mean, self.running_var)
        shape = (1, -1) + (1,) * (values.dim() - 2)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = (self.bias - mean * scale).reshape(shape)
        return torch.addcmul(shift * mask, values, scale.reshape(shape))

    def _statistics(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # The variance comes from sums of squares, because torch.var_mean takes five times as long over these dimensions on a CPU.
        dims = (0, *range(2, values.dim()))
        count = mask.sum() * (values[0, 0].numel() // mask[0, 0].numel())
        mean = values.sum(dims) / count
        variance = (values.square().sum(dims) / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        return mean, variance

"""Normalisation that ignores the padding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from robust_asr.masking import length_mask


class MaskedBatchNorm(_BatchNorm):
    """Batch normalisation (Ioffe and Szegedy 2015) whose statistics are computed over the valid frames only.

    For a batch of equal lengths it equals ``torch.nn.BatchNorm1d`` / ``BatchNorm2d``, parameters and buffers included. The
    padding of the result is zero, whatever the padding of the input is.

    Shape: values (B, C, ..., F), channels second and frames last; lengths (B,) frames -> (B, C, ..., F).
    """

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        self._check_input_dim(values)
        mask = length_mask(lengths, values.shape[-1])
        mask = mask.reshape(mask.shape[0], *(1,) * (values.dim() - 2), mask.shape[1])
        if not self.training:
            normalized = functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
            return normalized.masked_fill(~mask, 0)
        return self._normalize_batch(values, mask)

    def _normalize_batch(self, values: Tensor, mask: Tensor) -> Tensor:
        # bfloat16 is too coarse for a sum over a batch.
        wide = values if values.dtype == torch.float64 else values.float()
        dims = [dim for dim in range(values.dim()) if dim != 1]
        count = (mask.sum() * (values[0, 0].numel() // values.shape[-1])).clamp(min=1)
        wide = wide.masked_fill(~mask, 0)
        mean = wide.sum(dims) / count
        centered = (wide - _per_channel(mean, wide)).masked_fill(~mask, 0)
        variance = centered.square().sum(dims) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        normalized = centered * _per_channel(scale, wide) + _per_channel(self.bias, wide)
        return normalized.masked_fill(~mask, 0).to(values.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)

    def _check_input_dim(self, values: Tensor) -> None:
        if values.dim() < 3:
            raise ValueError(f"values must be (B, C, ..., F), got shape {tuple(values.shape)}")


def _per_channel(statistic: Tensor, like: Tensor) -> Tensor:
    return statistic.reshape(1, -1, *(1,) * (like.dim() - 2))

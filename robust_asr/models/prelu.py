"""PReLU with a fast gradient on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class PReLU(nn.PReLU):
    """``torch.nn.PReLU`` with one parameter. Its gradient uses operations that a CPU vectorises; torch's own gradient is slow.

    Its result has the type of its input, under autocast too.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, values: Tensor) -> Tensor:
        return _PReLU.apply(values, self.weight.to(values.dtype))


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(values, slope)
        # Autocast would round values of float32, and their gradient would come back in another type than they have.
        with torch.autocast(values.device.type, enabled=False):
            return functional.prelu(values, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(gradient, values, 0)
        # The gradient in the values is the slope times the gradient where they are negative, and the gradient elsewhere.
        return torch.lerp(positive, gradient, slope), (gradient * values.clamp(max=0)).sum()[None]

"""What is part of a model in training, but does not learn."""

from __future__ import annotations

import warnings

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def hold(recognizer: nn.Module) -> None:
    """No gradient for its parameters, no dropout, no statistics: a fixed function, through which gradients still flow.

    On a GPU its RNNs stay in training mode without their dropout, which computes the same: cuDNN refuses to differentiate an RNN
    in evaluation mode.
    """
    recognizer.eval().requires_grad_(False)
    for module in recognizer.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
            module.training = any(parameter.is_cuda for parameter in module.parameters())


def freeze_batch_norm(recognizer: nn.Module) -> None:
    """BatchNorm to evaluation mode: its statistics stay; its scale and shift still learn."""
    for module in recognizer.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def modes_are_intended() -> None:
    """Lightning warns of modules in evaluation mode when training starts; here they are meant to be."""
    warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode.*")

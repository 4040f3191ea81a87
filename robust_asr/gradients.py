"""Gradients with respect to the waveform, on a model that is left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def frozen_for_attack(recognizer: nn.Module) -> Iterator[nn.Module]:
    """The one place for attack mode: inside, the model is a fixed function of the waveform, in float32.

    As ``hold``, and autocast is off. On exit every module's mode, every parameter's ``requires_grad`` and ``grad`` and every
    RNN's dropout are what they were, also after an error.
    """
    modes = {module: module.training for module in recognizer.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in recognizer.parameters()}
    rnn_dropout = {module: module.dropout for module in modes if isinstance(module, nn.RNNBase)}
    device_type = "cuda" if any(parameter.is_cuda for parameter in wanted) else "cpu"
    try:
        hold(recognizer)
        with torch.autocast(device_type, enabled=False):
            yield recognizer
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, dropout in rnn_dropout.items():
            module.dropout = dropout
        for parameter, requires_grad in wanted.items():
            parameter.requires_grad_(requires_grad)


def hold(module: nn.Module) -> None:
    """Make a module a fixed function through which gradients still flow: no gradient for parameters, no dropout, no statistics.

    cuDNN refuses to differentiate an RNN in evaluation mode, so on a GPU the RNNs stay in training mode with dropout 0, which
    computes the same function.
    """
    module.eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.RNNBase) and any(parameter.is_cuda for parameter in layer.parameters()):
            layer.train()
            layer.dropout = 0.0


def freeze_batch_norm(module: nn.Module) -> None:
    """BatchNorm to evaluation mode: its statistics stay; its scale and shift still learn."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


class Checkpointed(nn.Module):
    """A module that can keep only what enters each of its blocks, and compute their inside again for the gradient.

    Attributes:
        checkpointing: whether it does: a third more time, the memory of one block instead of all. No part of the architecture.
    """

    checkpointing: bool = False

    def run_block(self, block: nn.Module, *arguments: Any) -> Any:
        """What ``block`` makes of its arguments."""
        if self.checkpointing and torch.is_grad_enabled():
            # The other kind of checkpointing refuses torch.autograd.grad, which attacks use.
            return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
        return block(*arguments)


def use_checkpointing(module: nn.Module, *, checkpointing: bool) -> None:
    """Switch it on or off in everything inside that knows it."""
    for layer in module.modules():
        if isinstance(layer, Checkpointed):
            layer.checkpointing = checkpointing


def input_gradient(loss: Callable[[Tensor], Tensor], waveforms: Tensor) -> tuple[Tensor, Tensor]:
    """Per-utterance losses and their gradient in the waveform.

    The losses are summed, so the gradient of one utterance does not depend on its neighbours. ``torch.autograd.grad`` touches
    no parameter's ``.grad`` and no DDP hook, and works inside ``no_grad`` loops.

    Shape: waveforms (B, T) -> losses (B,), gradient (B, T).
    """
    with torch.enable_grad():
        waveforms = waveforms.detach().requires_grad_(True)
        losses = loss(waveforms)
        (gradient,) = torch.autograd.grad(losses.sum(), waveforms)
    return losses.detach(), gradient


def straight_through(value: Tensor, waveforms: Tensor) -> Tensor:
    """``value`` exactly, with the gradient of ``waveforms``: the backward pass takes what lies between for the identity.

    BPDA (Athalye, Carlini and Wagner 2018, section 4.1).

    Shape: both (B, T).
    Errors: ValueError where the shapes differ.
    """
    if value.shape != waveforms.shape:
        raise ValueError(f"{tuple(waveforms.shape)} samples became {tuple(value.shape)}: no identity lies between them")
    # x - x is exactly zero, while x + (value - x) would round.
    return value.detach() + (waveforms - waveforms.detach())

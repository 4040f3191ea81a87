"""Gradients with respect to the waveform, on a model that is left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen_for_attack(recognizer: nn.Module) -> Iterator[nn.Module]:
    """The one place for attack mode: inside, the model is a fixed function of the waveform, in float32.

    Evaluation mode for BatchNorm and dropout, no gradient for parameters, autocast off. On exit every module's mode, every
    parameter's ``requires_grad`` and ``grad`` and every RNN's dropout are what they were, also after an error.
    cuDNN refuses to differentiate an RNN in evaluation mode, so on a GPU the RNNs stay in training mode with dropout 0,
    which computes the same function.
    """
    modes = {module: module.training for module in recognizer.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in recognizer.parameters()}
    rnn_dropout = {module: module.dropout for module in modes if isinstance(module, nn.RNNBase)}
    on_gpu = any(parameter.is_cuda for parameter in wanted)
    device_type = "cuda" if on_gpu else "cpu"
    try:
        recognizer.eval()
        for parameter in wanted:
            parameter.requires_grad_(False)
        if on_gpu:
            for module in rnn_dropout:
                module.train()
                module.dropout = 0.0
        with torch.autocast(device_type, enabled=False):
            yield recognizer
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, dropout in rnn_dropout.items():
            module.dropout = dropout
        for parameter, requires_grad in wanted.items():
            parameter.requires_grad_(requires_grad)


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

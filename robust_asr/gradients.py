"""Gradients with respect to the waveform, on a model that is left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from robust_asr.randomness import derive
from robust_asr.types import Targets


class Loss(Protocol):
    """A loss of each utterance whose draws are keyed: ``Recognizer.loss``, or a detector's."""

    def __call__(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor) -> Tensor:
        """Shape: waveforms (B, T), lengths (B,), seeds (B,) -> (B,)."""


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


def expectation(
    loss: Loss,
    waveforms: Tensor,
    lengths: Tensor,
    targets: Targets,
    *,
    seeds: Tensor,
    step: int = 0,
    num_draws: int = 1,
    max_samples: int = 2**22,
) -> tuple[Tensor, Tensor]:
    """Mean loss of each utterance over draws, and the mean gradient (expectation over transformation; Athalye et al. 2018).

    Draw j of an utterance is keyed by ``derive(seeds, step=step, draw=j)``; an attack counts its iterations in ``step``. Sums
    run over the draws of an utterance in their order, so the result depends neither on its neighbours nor on ``max_samples``,
    up to the rounding of a recogniser that computes large batches differently.

    Shape: waveforms (B, T), lengths (B,), seeds (B,) -> losses (B,), gradient (B, T).
    Units: max_samples, the bound on memory: samples that pass through the loss at once, padding included, but never less
        than one utterance; by default 262 seconds at 16 kHz.
    """
    if num_draws < 1 or max_samples < 1:
        raise ValueError(f"num_draws and max_samples must be at least 1, found {num_draws} and {max_samples}")
    draws = torch.stack([derive(seeds, step=step, draw=draw) for draw in range(num_draws)], 1).flatten()
    owners = torch.arange(len(waveforms)).repeat_interleave(num_draws)
    losses, gradient = waveforms.new_zeros(len(waveforms)), torch.zeros_like(waveforms)
    for rows in torch.arange(len(owners)).split(max(max_samples // max(waveforms.shape[1], 1), 1)):
        part = owners[rows]
        inner = partial(loss, lengths=lengths[part], targets=targets.select(part), seeds=draws[rows])
        drawn_losses, drawn_gradients = input_gradient(inner, waveforms[part])
        for row, owner in enumerate(part.tolist()):
            losses[owner] += drawn_losses[row] / num_draws
            gradient[owner] += drawn_gradients[row] / num_draws
    return losses, gradient


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

"""Gradients with respect to the waveform, computed without changing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_UNREACHED = (
    "no gradient of the loss reaches the audio: the recogniser must compute its scores from the waveforms by operations of "
    "torch, without torch.no_grad, detach or numpy"
)


@contextmanager
def frozen_for_attack(recognizer: nn.Module) -> Iterator[nn.Module]:
    """Attack mode: inside the ``with`` block the model is a fixed function of the waveform, in float32.

    The block applies ``hold`` and turns autocast off. On exit, also after an error, every module's mode, every parameter's
    ``requires_grad`` and ``grad`` and every RNN's dropout are restored.
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
    """Make a module a fixed function: no gradients for parameters, no dropout, no batch statistics. Input gradients still flow.

    cuDNN cannot differentiate an RNN in evaluation mode, so on a GPU the RNNs stay in training mode with dropout 0, which
    computes the same function.
    """
    module.eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.RNNBase) and any(parameter.is_cuda for parameter in layer.parameters()):
            layer.train()
            layer.dropout = 0.0


def freeze_batch_norm(module: nn.Module) -> None:
    """Set BatchNorm layers to evaluation mode: their statistics stay fixed, their scale and shift are still trained."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


class Checkpointed(nn.Module):
    """A module that can save only the inputs of its blocks and recompute the values inside them for the gradient.

    Attributes:
        checkpointing: whether values are recomputed; takes a third more time, but the memory of one block instead of all. This
            attribute is not part of the architecture.
    """

    checkpointing: bool = False

    def run_block(self, block: nn.Module, *arguments: Any) -> Any:
        """The output of ``block``; with ``checkpointing``, its inside is recomputed for the gradient."""
        if self.checkpointing and torch.is_grad_enabled():
            # Reentrant checkpointing does not work with torch.autograd.grad, which attacks use.
            return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
        return block(*arguments)


def use_checkpointing(module: nn.Module, *, checkpointing: bool) -> None:
    """Switch checkpointing on or off in a module and all ``Checkpointed`` modules inside it."""
    for layer in module.modules():
        if isinstance(layer, Checkpointed):
            layer.checkpointing = checkpointing


def input_gradient(loss: Callable[[Tensor], Tensor], waveforms: Tensor) -> tuple[Tensor, Tensor]:
    """Per-utterance losses and their gradient in the waveforms.

    The losses are summed, so the gradient of an utterance does not depend on the other utterances. ``torch.autograd.grad`` does
    not change the ``.grad`` of any parameter, triggers no DDP hook, and works inside ``no_grad`` loops.

    Shape: waveforms (B, T) -> losses (B,), gradient (B, T).
    Errors: ValueError if the loss does not depend on the waveforms by operations that torch can differentiate.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("an attack needs gradients, which torch.inference_mode forbids: use torch.no_grad instead")
    with torch.enable_grad():
        # A tensor that was made in inference mode takes part in gradients only as a copy.
        waveforms = waveforms.clone() if waveforms.is_inference() else waveforms.detach()
        waveforms.requires_grad_(True)
        try:
            losses = loss(waveforms)
        except RuntimeError as error:
            # torch has no class of its own for this error.
            if "numpy() on Tensor that requires grad" in str(error):
                raise ValueError(f"{_UNREACHED}; it converts the audio to numpy") from error
            raise
        gradient = None
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses.sum(), waveforms, allow_unused=True)
    if gradient is None:
        raise ValueError(_UNREACHED)
    return losses.detach(), gradient


def straight_through(value: Tensor, waveforms: Tensor) -> Tensor:
    """Return exactly ``value``, with the gradient of ``waveforms``, as if ``value`` were the identity of ``waveforms``.

    This is BPDA (Athalye, Carlini and Wagner 2018, section 4.1).

    Shape: both (B, T).
    Errors: ValueError if the shapes differ.
    """
    if value.shape != waveforms.shape:
        raise ValueError(
            f"{tuple(waveforms.shape)} samples became {tuple(value.shape)}: a straight-through gradient needs equal shapes"
        )
    # Adding x - x, which is exactly zero, keeps ``value`` exact; x + (value - x) would round.
    return value.detach() + (waveforms - waveforms.detach())

"""Planted masked gradients: as defences, which have a straight-through form, and inside a recogniser, which has none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_asr.defenses.base import Defense
from robust_asr.models.compact import CompactCTC
from tests.listeners import SIZES, four_words


class Quantised(Defense):
    """Rounds to 12 bits, whose gradient is zero."""

    name = "QUANTISED"

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (2048 * waveforms).round() / 2048, lengths


class Detached(Defense):
    """Cuts the gradient off."""

    name = "DETACHED"

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return waveforms.detach().clone(), lengths


class LoudDetached(Defense):
    """Cuts the gradient of loud samples off."""

    name = "LOUD"

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.where(waveforms.abs() > 0.005, waveforms.detach(), waveforms), lengths


class _Noise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, waveforms: Tensor) -> Tensor:
        return waveforms.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0)).to(gradient)


class RandomGradient(Defense):
    """Answers with noise when it is asked for a gradient."""

    name = "RANDOM"

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _Noise.apply(waveforms), lengths


class _Inside(CompactCTC):
    mask: Defense

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().encode(*self.mask(waveforms, lengths), seeds=seeds)


def inside(mask: Defense) -> CompactCTC:
    """``four_words`` with a mask that no view removes."""
    recognizer = _Inside(**SIZES["four_words"])
    recognizer.load_state_dict(four_words().state_dict())
    recognizer.mask = mask
    return recognizer.eval()


def saturated() -> CompactCTC:
    """``four_words`` with scores so large that the loss of what it hears is zero, and its slope too."""
    recognizer = CompactCTC(**SIZES["four_words"])
    recognizer.load_state_dict(four_words().state_dict())
    with torch.no_grad():
        for parameter in recognizer.head.parameters():
            parameter *= 1e4
    return nn.Module.eval(recognizer)

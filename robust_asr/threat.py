"""Threat models: which perturbations an attacker is allowed, per utterance, with the padding left at zero.

Legend: B utterances, T samples; x a waveform, d its perturbation, n its length in samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_asr.masking import length_mask, masked
from robust_asr.types import AudioBatch


class ThreatModel(ABC):
    """A set of perturbations around each utterance; the attacked waveform also stays in [-1, 1] and its padding zero.

    A frozen dataclass whose fields are its configuration.
    """

    @abstractmethod
    def project(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        """The nearest allowed perturbation, then clamped so that x + d stays in [-1, 1]. Shape: (B, T) -> (B, T)."""

    @abstractmethod
    def random(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        """A random allowed perturbation of each utterance. Shape: seeds (B,) -> (B, T)."""

    @abstractmethod
    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        """How large each perturbation is, in the unit of the bound. Shape: (B, T) -> (B,)."""

    @abstractmethod
    def contains(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        """Whether attacked waveforms are allowed, up to rounding. Shape: (B, T) -> (B,) bool."""

    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """``norm``, ``strength`` and ``strength_unit`` as the papers' tables write them."""


@dataclass(frozen=True)
class Unbounded(ThreatModel):
    """Any perturbation within [-1, 1]. Units: size is the Euclidean norm of the perturbation."""

    def project(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return inside_box(delta, batch)

    def random(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        raise NotImplementedError("an unbounded threat model has no random start")

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return masked(delta, batch.lengths).double().norm(dim=1)

    def contains(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        return in_box(adversarial, batch)

    def columns(self) -> dict[str, Any]:
        return {"norm": "", "strength": "unbounded", "strength_unit": ""}


def inside_box(delta: Tensor, batch: AudioBatch) -> Tensor:
    """The perturbation without its padding, clamped so that x + d stays in [-1, 1]."""
    return masked((batch.waveforms + delta).clamp(-1, 1) - batch.waveforms, batch.lengths)


def in_box(adversarial: Tensor, batch: AudioBatch) -> Tensor:
    """Whether each waveform is finite, within [-1, 1], and zero past its length. Shape: (B, T) -> (B,) bool."""
    inside = adversarial.isfinite() & (adversarial.abs() <= 1)
    silent = length_mask(batch.lengths, adversarial.shape[1]) | (adversarial == 0)
    return (inside & silent).all(dim=1)

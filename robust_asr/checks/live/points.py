"""Where the live checks of the gradient measure: an utterance so noisy that its loss has a slope.

Legend: B utterances, T samples; N versions of one utterance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.randomness import keyed_normal
from robust_asr.types import AudioBatch, Targets

# The gradient is measured where the loss is at least this many nats. On clean audio the loss of a confident recogniser is so
# flat that a step would measure its curvature. White noise raises the loss: the SNRs are tried from the weakest noise to the
# loudest, which a recogniser needs for a single word that it knows well.
_HEIGHT = 1.0
_DECIBELS = (40.0, 30.0, 20.0, 10.0, 0.0, -10.0, -20.0)


@dataclass(frozen=True)
class Point:
    """One utterance, one text and one draw of a recogniser. Shape: seeds (1,); ``clean`` and ``noisy`` hold one utterance.

    Attributes:
        clean: the utterance as it is.
        noisy: the utterance with the weakest noise that raises its loss to a nat, or with the loudest noise if none does.
    """

    recognizer: Recognizer
    clean: AudioBatch
    noisy: AudioBatch
    targets: Targets
    seeds: Tensor

    @classmethod
    def of(cls, recognizer: Recognizer, clean: AudioBatch, text: str, seeds: Tensor) -> Point:
        quiet = cls(recognizer, clean, clean, recognizer.targets([text]), seeds)
        noise = keyed_normal(seeds, clean.lengths, clean.waveforms.shape[1], device=clean.waveforms.device)
        noise = noise * (clean.waveforms.square().sum() / noise.square().sum()).sqrt()
        scales = torch.tensor([0.0, *(10 ** (-decibels / 20) for decibels in _DECIBELS)], device=noise.device)
        versions = clean.waveforms + scales[:, None] * noise
        # One after the other, since the loss of most texts is high at once.
        one_by_one = (version[None].to(clean.waveforms.dtype) for version in versions)
        chosen = next((version for version in one_by_one if float(quiet.losses(version)) >= _HEIGHT), None)
        noisy = clean.replace(versions[-1:].to(clean.waveforms.dtype) if chosen is None else chosen)
        return cls(recognizer, clean, noisy, quiet.targets, seeds)

    @torch.no_grad()
    def losses(self, versions: Tensor) -> Tensor:
        """The losses of several versions of the utterance, on the same draw. Shape: (N, T) -> (N,) float64."""
        return self._losses(versions).double()

    @cached_property
    def clean_gradient(self) -> Tensor:
        """Shape: (1, T)."""
        return input_gradient(self._losses, self.clean.waveforms)[1]

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient where it is noisy. Shape: (1, T) float64."""
        return input_gradient(self._losses, self.noisy.waveforms)[1].double()

    @property
    def finite(self) -> bool:
        return bool(self.clean_gradient.isfinite().all() & self.gradient.isfinite().all())

    def moved(self, moves: Tensor) -> tuple[Tensor, Tensor]:
        """The change of the loss from x - d to x + d for N moves d, and the change that the gradient promises.

        The promise is computed from the two waveforms as float32 rounds them, not from the exact move.

        Shape: (N, T) -> (N,), (N,) float64.
        """
        sides = torch.cat([self.noisy.waveforms + moves, self.noisy.waveforms - moves]).to(self.noisy.waveforms.dtype)
        higher, lower = self.losses(sides).chunk(2)
        ahead, behind = sides.double().chunk(2)
        return higher - lower, ((ahead - behind) * self.gradient).sum(1)

    def _losses(self, versions: Tensor) -> Tensor:
        num = len(versions)
        lengths, targets = self.clean.lengths.repeat(num), self.targets.repeat(num)
        return self.recognizer.loss(versions, lengths, targets, seeds=self.seeds.repeat(num))

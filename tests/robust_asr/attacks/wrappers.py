"""Recognisers around others, and a linear classifier of frames whose best perturbation is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_asr.masking import masked
from robust_asr.models.base import FrameSynchronous, Recognizer
from robust_asr.types import Emissions, Targets, Transcript
from tests.robust_asr.attacks.oracles import Oracle, Texts

FRAME = 10


class Frames(Oracle, FrameSynchronous):
    """Two labels, whose scores in a frame are linear in its samples: +-w.x / 2. Hears "HIGH" where most frames have label 1."""

    stochastic = False

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def margins(self, waveforms: Tensor) -> Tensor:
        """The score of label 1 minus that of label 0. Shape: (B, T) -> (B, F)."""
        size = -(-waveforms.shape[1] // FRAME) * FRAME
        padded = nn.functional.pad(waveforms, (0, size - waveforms.shape[1]))
        return padded.unflatten(1, (-1, FRAME)) @ self.weights

    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        self.rows.append(len(waveforms))
        margins = self.margins(masked(waveforms, lengths))
        scores = torch.stack([-margins / 2, margins / 2], -1).log_softmax(-1)
        return Emissions(scores, -(-lengths // FRAME))

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return self.margins(masked(waveforms, lengths)).sum(1)


class Wrapped(Recognizer):
    """Hands on loss and transcript alone, as a vote over transcripts does: no hidden units, no scores of frames."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.stochastic = recognizer.stochastic

    @property
    def inside(self) -> Recognizer:
        return self.recognizer

    def targets(self, texts: Sequence[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Texts) -> Tensor:
        return self.recognizer.feasible(lengths, targets)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(waveforms, lengths, seeds=seeds)

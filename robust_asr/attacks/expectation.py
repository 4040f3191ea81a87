"""Expectation over transformation (Athalye et al. 2018): losses and gradients of a random recogniser, within memory.

Legend: B utterances, J draws, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from robust_asr.attacks.aims import Aim
from robust_asr.attacks.compaction import Workload
from robust_asr.gradients import input_gradient
from robust_asr.masking import length_mask
from robust_asr.models.base import Recognizer
from robust_asr.randomness import derive
from robust_asr.types import AudioBatch, Targets, Transcript

Precision = Literal["32-true", "bf16-mixed"]
# The transcripts of each draw: J tuples of B transcripts.
Draws = list[tuple[Transcript, ...]]


class Expectation:
    """Loss and gradient of a workload, averaged over draws of the recogniser: expectation over transformation.

    J draws of B utterances are B * J rows. They are split into forward passes of at most ``max_samples / T`` rows, by default
    the size of one draw of the batch, so more draws cost time but no memory. The mean does not depend on the split: draw j of
    ``step`` always has the seeds ``derive(seeds, step=step, draw=j)``.

    A recogniser that is not ``stochastic`` gets one draw only, because all its draws are equal.

    With precision "bf16-mixed" the recogniser runs under autocast; losses, gradient and perturbation stay float32.

    Attributes:
        forwards: the passes of each utterance in one measurement of the loss, with or without its gradient.

    Units: max_samples as ``Recognizer.window`` counts them, padding included; a pass has at least one row.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        work: Workload,
        *,
        num_draws: int = 1,
        max_samples: int | None = None,
        precision: Precision = "32-true",
    ) -> None:
        self.recognizer = recognizer
        self.work = work
        self.num_draws = num_draws if recognizer.stochastic else 1
        self.precision = precision
        self.forwards = self.num_draws * (work.targets.passes(recognizer) if isinstance(work.targets, Aim) else 1)
        size = work.batch.waveforms.shape[1]
        max_rows = len(work) if max_samples is None else max(1, max_samples // _window(recognizer, work.batch))
        self._passes = _passes(work, num_draws=self.num_draws, max_rows=max_rows)
        ragged = int(work.batch.lengths.min()) < size
        self._valid = length_mask(work.batch.lengths, size).to(work.batch.waveforms) if ragged else None

    def gradient(self, waveforms: Tensor, *, step: int) -> tuple[Tensor, Tensor]:
        """Mean loss and its gradient, zero in the padding. Shape: (B, T) -> (B,) nats, (B, T)."""
        losses, gradient, _ = self.look(waveforms, step=step, gradient=True)
        return losses, gradient

    def loss(self, waveforms: Tensor, *, step: int) -> Tensor:
        """Mean loss. Shape: (B, T) -> (B,) nats."""
        return self.look(waveforms, step=step)[0]

    def look(
        self, waveforms: Tensor, *, step: int, gradient: bool = False, listen: bool = False
    ) -> tuple[Tensor, Tensor | None, Draws | None]:
        """Mean loss; on request also its gradient and the transcripts of each draw, from the same passes.

        Shape: (B, T) -> (B,) nats, (B, T) zero in the padding, J tuples of B transcripts.
        """
        losses, slopes, heard = waveforms.new_zeros(len(waveforms)), None, _Heard(self.num_draws, len(self.work))
        for part in self._passes:
            values = waveforms[part.rows, : part.size]
            if gradient:
                share, slope = input_gradient(
                    lambda values, part=part: self._losses(part, values, step, heard if listen else None), values
                )
                if len(self._passes) == 1 and slope.shape == waveforms.shape:
                    slopes = slope
                else:
                    slopes = torch.zeros_like(waveforms) if slopes is None else slopes
                    slopes[part.rows, : part.size] += slope
            else:
                with torch.no_grad():
                    share = self._losses(part, values, step, heard if listen else None)
            losses[part.rows] += share
        if slopes is not None and self._valid is not None:
            slopes = slopes * self._valid
        return losses, slopes, heard.draws() if listen else None

    def transcripts(self, waveforms: Tensor, *, step: int) -> Draws:
        """The transcripts of each draw. Shape: (B, T) -> J tuples of B transcripts."""
        heard = _Heard(self.num_draws, len(self.work))
        for part in self._passes:
            values = part.repeated(waveforms[part.rows, : part.size])
            with torch.no_grad(), self._autocast(waveforms):
                seeds = part.seeds(self.work.seeds, step)
                heard.keep(part, self.recognizer.transcribe(values, part.lengths, seeds=seeds))
        return heard.draws()

    def _losses(self, part: _Pass, values: Tensor, step: int, heard: _Heard | None) -> Tensor:
        """The share that a pass adds to each utterance's mean loss; transcripts go into ``heard``. Shape: (b, t) -> (b,)."""
        given = part.repeated(values), part.lengths, part.targets
        seeds = part.seeds(self.work.seeds, step)
        with self._autocast(values):
            if heard is None:
                losses = self._measure(*given, seeds=seeds)
            else:
                losses, transcripts = self._measure_and_listen(*given, seeds=seeds)
                heard.keep(part, transcripts)
        return losses.to(values.dtype).unflatten(0, (len(values), len(part.draws))).sum(1) / self.num_draws

    def _measure(self, waveforms: Tensor, lengths: Tensor, targets: Targets | Aim, *, seeds: Tensor) -> Tensor:
        if isinstance(targets, Aim):
            return targets.values(self.recognizer, waveforms, lengths, seeds=seeds)
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    def _measure_and_listen(
        self, waveforms: Tensor, lengths: Tensor, targets: Targets | Aim, *, seeds: Tensor
    ) -> tuple[Tensor, Sequence[Transcript]]:
        if isinstance(targets, Aim):
            return targets.values_and_transcripts(self.recognizer, waveforms, lengths, seeds=seeds)
        return self.recognizer.loss_and_transcripts(waveforms, lengths, targets, seeds=seeds)

    def _autocast(self, values: Tensor) -> AbstractContextManager[object]:
        return torch.autocast(values.device.type, torch.bfloat16) if self.precision == "bf16-mixed" else nullcontext()


def room_of(recognizer: Recognizer, batch: AudioBatch) -> int:
    """The size of one draw of a batch, padding included. Units: samples, as ``Recognizer.window`` counts them."""
    return len(batch) * _window(recognizer, batch)


def _window(recognizer: Recognizer, batch: AudioBatch) -> int:
    # The size is computed on the host, which would wait for a number on the device.
    return int(recognizer.window(torch.tensor([batch.waveforms.shape[1]])))


class _Heard:
    """Collects the transcripts of all draws of all utterances, pass by pass."""

    def __init__(self, num_draws: int, num_utterances: int) -> None:
        self._rows = [[Transcript("")] * num_utterances for _ in range(num_draws)]

    def keep(self, part: _Pass, transcripts: Sequence[Transcript]) -> None:
        """Store the transcripts of a pass: its rows in order, the draws of an utterance next to each other."""
        remaining = iter(transcripts)
        for row in range(part.rows.start, part.rows.stop):
            for draw in part.draws:
                self._rows[draw][row] = next(remaining)

    def draws(self) -> Draws:
        return [tuple(row) for row in self._rows]


@dataclass(frozen=True)
class _Pass:
    """One forward pass: neighbouring utterances, each repeated for some of its draws: a, a, b, b."""

    rows: slice
    draws: range
    size: int
    lengths: Tensor
    targets: Targets

    def seeds(self, seeds: Tensor, step: int) -> Tensor:
        return torch.stack([derive(seeds[self.rows], step=step, draw=draw) for draw in self.draws], dim=1).flatten()

    def repeated(self, waveforms: Tensor) -> Tensor:
        return waveforms if len(self.draws) == 1 else waveforms.repeat_interleave(len(self.draws), dim=0)


def _passes(work: Workload, *, num_draws: int, max_rows: int) -> list[_Pass]:
    """Split all draws of all utterances into passes of nearly equal size, with at most ``max_rows`` rows each."""
    passes = []
    lengths = work.batch.lengths.tolist()
    for rows in _even_parts(len(work), max_rows):
        targets = work.targets.select(torch.arange(rows.start, rows.stop)) if len(rows) < len(work) else work.targets
        for draws in _even_parts(num_draws, max(1, max_rows // len(rows))):
            part = slice(rows.start, rows.stop)
            repeats = work.batch.lengths[part].repeat_interleave(len(draws))
            passes.append(_Pass(part, draws, max(lengths[part]), repeats, _repeated(targets, len(draws))))
    return passes


def _even_parts(num: int, most: int) -> list[range]:
    parts = -(-num // most)
    bounds = [num * part // parts for part in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


def _repeated(targets: Targets, num: int) -> Targets:
    return targets.repeat(num) if num > 1 else targets

"""Expectation over transformation (Athalye et al. 2018): losses and gradients of a random recogniser, within memory.

Legend: B utterances, J draws, T samples.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.gradients import input_gradient
from robust_asr.masking import length_mask
from robust_asr.models.base import Recognizer
from robust_asr.randomness import derive
from robust_asr.types import Targets

Precision = Literal["32-true", "bf16-mixed"]


class Expectation:
    """Loss and gradient of a workload, averaged over draws of the recogniser: expectation over transformation.

    J draws of B utterances are B * J rows of ``max_samples / T`` or fewer a forward pass, by default as many as one draw of
    the batch has: draws then cost time and no memory. However they are split, the mean is over the same draws; draw j of
    ``step`` has the seeds ``derive(seeds, step=step, draw=j)``.

    A recogniser that is not ``stochastic`` is asked once.

    With precision "bf16-mixed" the recogniser runs under autocast; losses, gradient and perturbation stay float32.

    Units: max_samples, padding included; a pass has at least one row.
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
        self.num_draws = num_draws if getattr(recognizer, "stochastic", True) else 1
        self.precision = precision
        size = work.batch.waveforms.shape[1]
        max_rows = len(work) if max_samples is None else max(1, max_samples // size)
        self._passes = _passes(work, num_draws=self.num_draws, max_rows=max_rows)
        ragged = int(work.batch.lengths.min()) < size
        self._valid = length_mask(work.batch.lengths, size).to(work.batch.waveforms) if ragged else None

    def gradient(self, waveforms: Tensor, *, step: int) -> tuple[Tensor, Tensor]:
        """Mean loss and its gradient, zero in the padding. Shape: (B, T) -> (B,) nats, (B, T)."""
        losses, gradient = waveforms.new_zeros(len(waveforms)), None
        for part in self._passes:
            values = waveforms[part.rows, : part.size]
            found, slope = input_gradient(lambda values, part=part: self._losses(part, values, step), values)
            losses[part.rows] += found
            if len(self._passes) == 1 and slope.shape == waveforms.shape:
                gradient = slope
            else:
                gradient = torch.zeros_like(waveforms) if gradient is None else gradient
                gradient[part.rows, : part.size] += slope
        return losses, gradient if self._valid is None else gradient * self._valid

    def loss(self, waveforms: Tensor, *, step: int) -> Tensor:
        """Mean loss. Shape: (B, T) -> (B,) nats."""
        losses = waveforms.new_zeros(len(waveforms))
        with torch.no_grad():
            for part in self._passes:
                losses[part.rows] += self._losses(part, waveforms[part.rows, : part.size], step)
        return losses

    def transcripts(self, waveforms: Tensor, *, step: int) -> list[tuple[str, ...]]:
        """What is heard in each draw. Shape: (B, T) -> J tuples of B texts."""
        heard = [[""] * len(self.work) for _ in range(self.num_draws)]
        for part in self._passes:
            values = part.repeated(waveforms[part.rows, : part.size])
            with torch.no_grad(), self._autocast(waveforms):
                found = self.recognizer.transcribe(values, part.lengths, seeds=part.seeds(self.work.seeds, step))
            texts = iter(found)
            for row in range(len(self.work))[part.rows]:
                for draw in part.draws:
                    heard[draw][row] = next(texts).text
        return [tuple(texts) for texts in heard]

    def _losses(self, part: _Pass, values: Tensor, step: int) -> Tensor:
        """Each utterance's share of its mean loss. Shape: (b, t) -> (b,)."""
        seeds = part.seeds(self.work.seeds, step)
        with self._autocast(values):
            losses = self.recognizer.loss(part.repeated(values), part.lengths, part.targets, seeds=seeds)
        return losses.to(values.dtype).unflatten(0, (len(values), len(part.draws))).sum(1) / self.num_draws

    def _autocast(self, values: Tensor) -> AbstractContextManager[object]:
        return torch.autocast(values.device.type, torch.bfloat16) if self.precision == "bf16-mixed" else nullcontext()


@dataclass(frozen=True)
class _Pass:
    """One forward pass: neighbouring utterances, each with some of its draws in a row: a, a, b, b."""

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
    """All draws of all utterances, in passes of up to ``max_rows`` rows and of nearly equal size."""
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

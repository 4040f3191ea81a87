"""The bookkeeping of an attack with several runs: each utterance's present and best perturbation, and the work spent on it.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from robust_asr.attacks.base import Perturbation
from robust_asr.attacks.compaction import Workload, select_state, status_of
from robust_asr.types import AudioBatch


@dataclass
class Run:
    """The state of one run of an attack from one start.

    Shape: delta and best (B, T), the others (B,).

    Attributes:
        delta, best: the present perturbation, and the perturbation with the highest score so far.
        scores: the score of ``best``, float64; the higher, the better for the attacker.
        intact: whether every gradient so far was finite; an utterance whose gradient was not finite has stopped.
        moved: whether any gradient so far was not zero.
        iterations, forwards: as in ``AttackResult``.
    """

    delta: Tensor
    best: Tensor
    scores: Tensor
    intact: Tensor
    moved: Tensor
    iterations: Tensor
    forwards: Tensor

    @classmethod
    def at(cls, delta: Tensor) -> Run:
        # Double precision, because a score holds counts and, after the point, the order of equal counts.
        scores = delta.new_full((len(delta),), -torch.inf, dtype=torch.float64)
        moved = torch.zeros_like(scores, dtype=torch.bool)
        iterations, forwards = torch.zeros_like(scores, dtype=torch.long).repeat(2, 1)
        return cls(delta, delta, scores, ~moved, moved, iterations, forwards)

    @classmethod
    def restored(cls, state: dict[str, Tensor], device: torch.device) -> Self:
        """The run whose tensors a killed attack saved."""
        return cls(**{name: value.to(device) for name, value in state.items()})

    def remember(self, scores: Tensor) -> None:
        better = scores > self.scores
        self.best = torch.where(better[:, None], self.delta, self.best)
        self.scores = torch.where(better, scores, self.scores)


class Outcome:
    """The result of every utterance of the batch, over all runs. ``num_draws`` is the number of draws behind a score."""

    def __init__(self, batch: AudioBatch, *, num_draws: int = 1) -> None:
        self.batch = batch
        self.num_draws = num_draws
        self.state = Run.at(torch.zeros_like(batch.waveforms))

    def take_up(self, state: dict[str, Tensor]) -> None:
        """Restore the ``state`` that a killed attack saved."""
        self.state = Run.restored(state, self.batch.waveforms.device)

    def update(self, places: Tensor, run: Run) -> None:
        """Keep the perturbation of a run where its score is higher than before; add up its work. Shape: places (num,)."""
        state, places, size = self.state, places.to(run.delta.device), run.delta.shape[1]
        better = run.scores > state.scores[places]
        state.delta[places, :size] = torch.where(better[:, None], run.best, state.delta[places, :size])
        state.scores[places] = torch.where(better, run.scores, state.scores[places])
        for name in ("iterations", "forwards"):
            getattr(state, name)[places] += getattr(run, name)
        state.intact[places] &= run.intact
        state.moved[places] |= run.moved

    @property
    def damage(self) -> Tensor:
        """The damages among the scores (``Measures.damage``), without the order of equal ones. Shape: (B,) float64."""
        return (self.state.scores * self.num_draws).round() / self.num_draws

    def release(self, work: Workload, run: Run, done: Tensor) -> tuple[Workload, Run]:
        """Make the present perturbation of finished utterances final, whatever its loss; return the unfinished utterances.

        Shape: done (B,) bool, on the CPU.
        """
        finished, rest = done.nonzero()[:, 0], (~done).nonzero()[:, 0]
        ended = select_state(run, finished, run.delta.shape[1])
        ended.best, ended.scores = ended.delta, torch.full_like(ended.scores, torch.inf)
        self.update(work.places[finished], ended)
        left = work.select(rest)
        return left, select_state(run, rest, left.batch.waveforms.shape[1])

    def perturbation(self) -> Perturbation:
        state = self.state
        status = status_of(state.intact, state.moved)
        return Perturbation(self.batch.waveforms + state.delta, state.iterations, state.forwards, status)

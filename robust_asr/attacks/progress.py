"""What becomes of each utterance in an attack of several runs: its perturbation so far, its best, and what it cost.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_asr.attacks.base import Perturbation
from robust_asr.attacks.compaction import Workload, select_state, status_of
from robust_asr.types import AudioBatch


@dataclass
class Run:
    """One run from one start.

    Shape: delta and best (B, T), the others (B,).

    Attributes:
        delta, best: where the run is, and where its score was highest.
        scores: of ``best``, by the loss; the higher, the better for the attacker.
        intact: whether every gradient was finite; where one was not, the run has ended.
        moved: whether there was a gradient at all.
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
        scores = delta.new_full((len(delta),), -torch.inf)
        moved = torch.zeros_like(scores, dtype=torch.bool)
        iterations, forwards = torch.zeros_like(scores, dtype=torch.long).repeat(2, 1)
        return cls(delta, delta, scores, ~moved, moved, iterations, forwards)

    def remember(self, scores: Tensor) -> None:
        better = scores > self.scores
        self.best = torch.where(better[:, None], self.delta, self.best)
        self.scores = torch.where(better, scores, self.scores)


class Outcome:
    """What became of every utterance that the attack was given, over all runs."""

    def __init__(self, batch: AudioBatch) -> None:
        self.batch = batch
        self.state = Run.at(torch.zeros_like(batch.waveforms))

    def take_up(self, state: dict[str, Tensor]) -> None:
        """Go back to what a killed attack kept of ``state``."""
        self.state = Run(**{name: value.to(self.batch.waveforms.device) for name, value in state.items()})

    def update(self, places: Tensor, run: Run) -> None:
        """Take over the runs that are better than what there was, and count all of them. Shape: places (num,)."""
        state, places, size = self.state, places.to(run.delta.device), run.delta.shape[1]
        better = run.scores > state.scores[places]
        state.delta[places, :size] = torch.where(better[:, None], run.best, state.delta[places, :size])
        state.scores[places] = torch.where(better, run.scores, state.scores[places])
        for name in ("iterations", "forwards"):
            getattr(state, name)[places] += getattr(run, name)
        state.intact[places] &= run.intact
        state.moved[places] |= run.moved

    def release(self, work: Workload, run: Run, done: Tensor) -> tuple[Workload, Run]:
        """Keep what is done as it is now, whatever its loss. Returns the rest. Shape: done (B,) bool, on the CPU."""
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

"""The members of an ensemble of attacks.

Legend: B utterances, T samples, n utterances that a member works on.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_asr.attacks.comparison import Measures
from robust_asr.attacks.expectation import room_of
from robust_asr.attacks.objectives import Objective
from robust_asr.attacks.progress import Outcome, Run
from robust_asr.attacks.scored import ScoredAttack
from robust_asr.attacks.transfer import Transfer
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import Partial
from robust_asr.types import AudioBatch, Targets

# The draws on which the perturbations of all members are compared.
COMPARISON_DRAWS = 8


@dataclass(frozen=True)
class Member:
    """One attack of the ensemble, and the view of the recogniser that it attacks."""

    name: str
    view: Recognizer
    attack: ScoredAttack

    def search(
        self,
        batch: AudioBatch,
        targets: Targets,
        rows: Tensor,
        *,
        seeds: Tensor,
        partial: Partial,
        start: Tensor | None = None,
    ) -> Outcome:
        """Attack the utterances at ``rows``, from the perturbations ``start``. Shape: rows (n,), start (n, T)."""
        part = batch.select(rows)
        begun = {} if start is None else {"start": start[:, : part.waveforms.shape[1]]}
        return self.attack.search(self.view, part, targets.select(rows), seeds=seeds[rows], partial=partial, **begun)

    def judged(self, batch: AudioBatch, targets: Targets, delta: Tensor, *, seeds: Tensor) -> Outcome:
        """Perturbations that others found, as if they were the member's. Shape: delta (B, T)."""
        work = self.attack.workload(self.view, batch, targets, seeds=seeds)
        room = room_of(self.view, batch)
        measures = Measures.of(self.view, work, num_draws=1, comparison_draws=COMPARISON_DRAWS, max_samples=room)
        run = Run.at(delta)
        run.forwards += self.attack.objective.passes_to_aim(self.view)
        return self.attack.scored(measures, work, run)

    @property
    def passing(self) -> tuple[Objective, Recognizer]:
        """What the iterations raise, and the recogniser that they pass."""
        if isinstance(self.attack, Transfer):
            return self.attack.attack.objective, self.attack.surrogate
        return self.attack.objective, self.view

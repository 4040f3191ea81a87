"""Attacks that are made against another recogniser and played to the one that is attacked.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from robust_asr.attacks.climbing import climbed, passes_to_climb
from robust_asr.attacks.comparison import Measures
from robust_asr.attacks.expectation import room_of
from robust_asr.attacks.objectives import Loss
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.progress import Outcome
from robust_asr.attacks.scored import ScoredAttack
from robust_asr.gradients import frozen_for_attack
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.types import AudioBatch, Targets


class Transfer(ScoredAttack):
    """PGD with the gradients of a surrogate, whose result is scored on the recogniser that is attacked (ZE21, Table I).

    A recogniser whose gradients are masked has none that help; those of a similar recogniser do.

    Args:
        attack: what is done to the surrogate; its threat and goal are those of the whole.
        surrogate: a recogniser of the same sample rate that can write the texts.

    Errors: ValueError for a surrogate of another sample rate.
    """

    follows_gradients = False

    def __init__(self, attack: PGD, surrogate: Recognizer) -> None:
        self.attack, self.surrogate = attack, surrogate
        self.threat, self.goal = attack.threat, attack.goal
        # It only orders equal damages here; the surrogate's may be one that this recogniser does not have.
        self.objective = Loss()

    @property
    def name(self) -> str:
        return f"{self.attack.name} on a surrogate"

    def search(
        self,
        recognizer: Recognizer,
        batch: AudioBatch,
        targets: Targets,
        *,
        seeds: Tensor,
        partial: Partial = NOWHERE,
        start: Tensor | None = None,
    ) -> Outcome:
        if self.surrogate.sample_rate != recognizer.sample_rate:
            rates = f"{self.surrogate.sample_rate} Hz, and the recogniser {recognizer.sample_rate}"
            raise ValueError(f"surrogate: hears {rates}; they must be equal")
        other = self.surrogate.to(batch.waveforms.device)
        with frozen_for_attack(other):
            its_targets = climbed(self.goal, other, batch, self.goal.texts(batch, seeds=seeds), seeds=seeds).targets
            found = self.attack.search(other, batch, its_targets, seeds=seeds, partial=partial, start=start)
        found.state.forwards += passes_to_climb(self.goal, other)
        work = self.workload(recognizer, batch, targets, seeds=seeds)
        measure = Measures.of(
            recognizer,
            work,
            num_draws=1,
            comparison_draws=self.attack.comparison_draws,
            max_samples=room_of(recognizer, batch),
        )
        run = found.state
        run.scores = torch.full_like(run.scores, -torch.inf)
        # The gradients were the surrogate's: they say nothing about those of the recogniser.
        run.moved, run.intact = torch.zeros(2, len(batch), dtype=torch.bool, device=run.scores.device)
        return self.scored(measure, work, run)

    def refining(self, passes: int) -> Self:
        return Transfer(self.attack.refining(passes), self.surrogate)

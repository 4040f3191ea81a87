"""Attacks on an objective, whose results can be compared with those of others."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, Self

from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.comparison import Measures
from robust_asr.attacks.objectives import Objective
from robust_asr.attacks.progress import Outcome, Run
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.types import AudioBatch, Targets


class ScoredAttack(Attack):
    """An attack whose perturbations have scores, so that an ensemble can choose among its members; ``search`` is what it writes.

    Attributes:
        objective: what is raised.
        follows_gradients: whether the iterations follow gradients of the recogniser, which may turn out to be masked.
    """

    objective: Objective
    takes_start: ClassVar[bool] = True
    follows_gradients: ClassVar[bool] = True

    @abstractmethod
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
        """``perturb``, with the scores of its result. It begins at the perturbations ``start`` (B, T), if they are given."""

    @abstractmethod
    def refining(self, iterations: int) -> Self:
        """The attack that goes on from a perturbation that was found, in so many iterations."""

    def perturb(
        self,
        recognizer: Recognizer,
        batch: AudioBatch,
        targets: Targets,
        *,
        seeds: Tensor,
        partial: Partial = NOWHERE,
        start: Tensor | None = None,
    ) -> Perturbation:
        found = self.search(recognizer, batch, targets, seeds=seeds, partial=partial, start=start).perturbation()
        # Where no gradient of this recogniser was asked for, none was masked.
        return found if self.follows_gradients else replace(found, status=())

    def scored(self, measures: Measures, work: Workload, run: Run) -> Outcome:
        """The present perturbations of a run as its result, judged by their damage."""
        scores, passes = measures.damage(work.batch.waveforms + run.delta, self.goal)
        run.forwards += passes
        run.remember(scores)
        outcome = Outcome(work.batch, num_draws=measures.common.num_draws)
        outcome.update(work.places, run)
        return outcome

    def workload(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor) -> Workload:
        """The batch with what the objective aims at. Shape: seeds (B,)."""
        aim = self.objective.aim(recognizer, batch, targets, self.goal, seeds=seeds)
        return Workload.whole(batch, aim, self.goal.compared(recognizer, batch, seeds=seeds), seeds=seeds)

"""Random search in windows, which needs no gradient (Andriushchenko et al. 2020, Square Attack, in one dimension).

Legend: B utterances, T samples; d a perturbation, r the radius of the ball.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from robust_asr.attacks.comparison import Measures
from robust_asr.attacks.expectation import room_of
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.objectives import Loss, Objective
from robust_asr.attacks.progress import Outcome, Run
from robust_asr.attacks.scored import ScoredAttack
from robust_asr.attacks.settings import require_ball, require_counts, require_objective
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.randomness import Key, derive, keyed_uniform
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Ball
from robust_asr.threat.norms import scaled_to
from robust_asr.types import AudioBatch, Targets

# Where the windows halve, as shares of all queries, and the share of the audio that the first window covers (section 3.2 of the
# paper, whose numbers are for 10,000 queries).
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_FIRST_WINDOW = 0.8
# Tones between these, in hertz: a constant, the pattern for images, is what a speech recogniser filters out.
_LOWEST, _HIGHEST = 100.0, 4000.0


@dataclass(frozen=True)
class Square(ScoredAttack):
    """d gets a tone in a random window of each utterance, and keeps it where the objective rises.

    The perturbation always fills the ball: in the maximum norm a window holds the signs of a tone, times the radius; in the
    Euclidean norm the whole perturbation is scaled to the radius. The windows shrink from four fifths of the audio. Every query
    is one pass without a gradient, of the same draws of a random recogniser.

    An attack without gradients that beats those with gradients says that the gradients are masked.

    Attributes:
        num_queries: the passes that propose, the first tone included.
        comparison_draws: the draws on which the result is judged, as in ``PGD``.
    """

    threat: Ball
    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    objective: Objective = field(default_factory=Loss)
    num_queries: int = 100
    comparison_draws: int = 8
    max_samples: int | None = None
    knowledge: Knowledge = "exact"
    title: ClassVar[str] = "square"
    follows_gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ball(self)
        require_objective(self, self.objective)
        require_counts(self, "num_queries", "comparison_draws")
        require_counts(self, "max_samples", optional=True)

    @property
    def name(self) -> str:
        ours = f" {self.objective.name}" if self.objective.name else ""
        return f"{self.title}-{self.num_queries}{' targeted' if self.goal.targeted else ''}{ours}"

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
        work = self.workload(recognizer, batch, targets, seeds=seeds)
        room = self.max_samples or room_of(recognizer, batch)
        measure = Measures.of(recognizer, work, num_draws=1, comparison_draws=self.comparison_draws, max_samples=room)
        run = Run.at(torch.zeros_like(batch.waveforms) if start is None else start)
        run.forwards += self.objective.passes_to_aim(recognizer)
        best, first, key = batch.waveforms.new_full((len(batch),), -torch.inf), 0, Key.QUERIES
        if (saved := partial.load()) is not None:
            run = Run.restored(saved["run"], batch.lengths.device)
            first, best = saved["query"], saved["best"].to(best)
        elif start is not None:
            best = measure.steps.loss(batch.waveforms + start, step=Key.QUERIES)
            run.forwards += measure.steps.forwards
        if start is not None:
            # Other tones than those that led to the start.
            key += Key.RESTART
        for query in range(first, self.num_queries):
            drawn = derive(seeds, step=key + query)
            proposal = self._proposal(run.delta, batch, drawn, query, recognizer.sample_rate)
            values = measure.steps.loss(batch.waveforms + proposal, step=Key.QUERIES)
            run.forwards += measure.steps.forwards
            run.iterations += 1
            higher = values > best
            run.delta = torch.where(higher[:, None], proposal, run.delta)
            best = torch.where(higher, values, best)
            partial.keep(lambda query=query, best=best: {"query": query + 1, "run": vars(run), "best": best})
        return self.scored(measure, work, run)

    def refining(self, iterations: int) -> Self:
        return replace(self, num_queries=iterations)

    def _proposal(self, delta: Tensor, batch: AudioBatch, seeds: Tensor, query: int, sample_rate: int) -> Tensor:
        """The perturbation with a new tone in a window of each utterance. Shape: (B, T), seeds (B,) -> (B, T)."""
        drawn = torch.stack([keyed_uniform(derive(seeds, draw=draw)) for draw in range(3)])
        start, pitch, phase = drawn.to(delta, non_blocking=True)[..., None]
        share = 1.0 if query == 0 else _FIRST_WINDOW / 2 ** sum(query / self.num_queries >= at for at in _HALVINGS)
        lengths = batch.lengths[:, None]
        places = torch.arange(delta.shape[1], device=delta.device)
        first = start * (1 - share) * lengths
        inside = (places >= first) & (places < first + (share * lengths).clamp(min=1))
        hertz = _LOWEST * (_HIGHEST / _LOWEST) ** pitch
        tone = (2 * math.pi * (hertz / sample_rate * places + phase)).sin().sign()
        radius = self.threat.radius(batch)
        if self.threat.norm == "linf":
            changed = torch.where(inside, radius[:, None] * tone, delta)
        else:
            level = radius[:, None] / lengths.clamp(min=1).sqrt()
            changed = scaled_to(torch.where(inside, level * tone, delta) * (places < lengths), radius, norm="l2")
        return self.threat.project(changed, batch)

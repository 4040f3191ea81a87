"""Random search in windows, which needs no gradient (Andriushchenko et al. 2020, Square Attack, in one dimension).

Legend: B utterances, T samples; d a perturbation, r the radius of the ball.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.comparison import Measures
from robust_asr.attacks.expectation import Expectation, room_of
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.objectives import Loss, Objective
from robust_asr.attacks.progress import Outcome, Run
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
class Square(Attack):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.threat, Ball):
            raise ValueError(f"threat must be a ball such as Linf, L2 or SNR, found {self.threat}")
        for name in ("num_queries", "comparison_draws"):
            if not 1 <= getattr(self, name) < Key.RESTART:
                raise ValueError(f"{name} must be at least 1 and below {int(Key.RESTART)}, found {getattr(self, name)}")

    @property
    def name(self) -> str:
        ours = f" {self.objective.name}" if self.objective.name else ""
        return f"{self.title}-{self.num_queries}{' targeted' if self.goal.targeted else ''}{ours}"

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        return self.search(recognizer, batch, targets, seeds=seeds, partial=partial).perturbation()

    def search(
        self,
        recognizer: Recognizer,
        batch: AudioBatch,
        targets: Targets,
        *,
        seeds: Tensor,
        partial: Partial = NOWHERE,
    ) -> Outcome:
        """``perturb`` with the scores of its result, for attacks that compare several."""
        aim = self.objective.aim(recognizer, batch, targets, self.goal, seeds=seeds)
        work = Workload.whole(batch, aim, self.goal.texts(batch, seeds=seeds), seeds=seeds)
        room = self.max_samples or room_of(recognizer, batch)
        measure = Measures(
            Expectation(recognizer, work, max_samples=room),
            Expectation(recognizer, work, num_draws=self.comparison_draws, max_samples=room),
        )
        run, best = Run.at(torch.zeros_like(batch.waveforms)), batch.waveforms.new_full((len(batch),), -torch.inf)
        first = 0
        if (saved := partial.load()) is not None:
            state = {name: value.to(batch.lengths.device) for name, value in saved["run"].items()}
            first, run, best = saved["query"], Run(**state), saved["best"].to(best)
        # What moves here is the proposal; a gradient is not asked for, so none can be masked.
        run.moved |= True
        for query in range(first, self.num_queries):
            proposal = self._proposal(run.delta, batch, derive(seeds, step=Key.QUERIES + query), query)
            values = measure.steps.loss(batch.waveforms + proposal, step=Key.QUERIES)
            run.forwards += measure.steps.num_draws
            run.iterations += 1
            higher = values > best
            run.delta = torch.where(higher[:, None], proposal, run.delta)
            best = torch.where(higher, values, best)
            partial.keep(lambda query=query, best=best: {"query": query + 1, "run": vars(run), "best": best})
        scores, passes = measure.damage(batch.waveforms + run.delta, self.goal)
        run.forwards += passes
        run.remember(scores)
        outcome = Outcome(batch, num_draws=measure.common.num_draws)
        outcome.update(work.places, run)
        return outcome

    def _proposal(self, delta: Tensor, batch: AudioBatch, seeds: Tensor, query: int) -> Tensor:
        """The perturbation with a new tone in a window of each utterance. Shape: (B, T), seeds (B,) -> (B, T)."""
        start, pitch, phase = (keyed_uniform(derive(seeds, draw=draw)).to(delta)[:, None] for draw in range(3))
        share = 1.0 if query == 0 else _FIRST_WINDOW / 2 ** sum(query / self.num_queries >= at for at in _HALVINGS)
        lengths = batch.lengths[:, None]
        places = torch.arange(delta.shape[1], device=delta.device)
        first = start * (1 - share) * lengths
        inside = (places >= first) & (places < first + (share * lengths).clamp(min=1))
        hertz = _LOWEST * (_HIGHEST / _LOWEST) ** pitch
        tone = (2 * math.pi * (hertz / _SAMPLE_RATE * places + phase)).sin().sign()
        radius = self.threat.radius(batch)
        if self.threat.norm == "linf":
            changed = torch.where(inside, radius[:, None] * tone, delta)
        else:
            level = radius[:, None] / lengths.clamp(min=1).sqrt()
            changed = scaled_to(torch.where(inside, level * tone, delta) * (places < lengths), radius, norm="l2")
        return self.threat.project(changed, batch)


_SAMPLE_RATE = 16_000

"""Projected gradient descent (Madry et al. 2018) in any ball, with expectation over transformation.

Legend: B utterances, T samples; x a waveform, d its perturbation, r the radius of the ball.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial as partial_function
from typing import Literal, Self, get_args, get_type_hints

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.comparison import Measures
from robust_asr.attacks.expectation import Expectation, Precision, room_of
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.objectives import Loss, Objective, Usual
from robust_asr.attacks.progress import Outcome, Run
from robust_asr.attacks.scored import ScoredAttack
from robust_asr.attacks.settings import require_ball, require_counts, require_objective
from robust_asr.attacks.steps import Constant, Cosine, Steps
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.randomness import Key, derive
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Ball
from robust_asr.types import AudioBatch, Targets

_REFINING, _LOOKS = Cosine(0.2), 3


@dataclass(frozen=True)
class PGD(ScoredAttack):
    """d <- P(d + step * direction): steepest ascent of an objective in the ball's norm, then projection P into ball and box.

    Each iteration is one forward and backward pass on ``num_draws`` draws of the recogniser, whose gradients are averaged. An
    utterance whose gradient is not finite stops at its last perturbation, with a note; the other utterances continue.

    Sources: Madry et al. (2018) for constant steps on the recogniser's loss, ``PaperPGD``, which is weaker than the default here.

    Attributes:
        objective: what is raised; by default the loss of the target or, untargeted, ``Usual``: the loss and the margin of every
            frame or token.
        steps: how far each iteration goes.
        random_start: start at a random point of the ball instead of at x.
        num_restarts: the number of runs from random starts; each utterance keeps its best run.
        keep: the perturbation of a run that is returned: the last, the one with the best value of the objective, or the one with
            the most damage to the transcript (``Goal.damage``), where equal damage is decided by the objective.
            A transcript is taken every ``check_every`` iterations and at the end. Perturbations and runs are compared on the
            same draws of a random recogniser, which no iteration uses.
        num_draws: the number of draws of a random recogniser in each iteration.
        comparison_draws: the number of draws on which perturbations and runs are compared.
        stop_on_success: stop attacking an utterance when its goal is reached on ``num_draws`` fresh draws, checked every
            ``check_every`` iterations.
        max_samples: the largest forward pass, utterances times draws times padded length; by default that of one draw of the
            whole batch.
        precision: "bf16-mixed" runs the recogniser under autocast.
    """

    threat: Ball
    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    objective: Objective | None = None
    num_iterations: int = 50
    steps: Steps = field(default_factory=Cosine)
    random_start: bool = False
    num_restarts: int = 1
    keep: Literal["last", "value", "damage"] = "damage"
    num_draws: int = 1
    comparison_draws: int = 8
    stop_on_success: bool = False
    check_every: int = 10
    max_samples: int | None = None
    precision: Precision = "32-true"
    knowledge: Knowledge = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective is None:
            chosen = Loss() if self.goal.targeted else Usual()
            object.__setattr__(self, "objective", chosen)
        require_ball(self)
        require_objective(self, self.objective)
        if not isinstance(self.steps, Steps):
            raise ValueError(f"steps must be an object such as {{Cosine: {{}}}}, found {self.steps!r}")
        require_counts(self, "num_iterations", "num_restarts", "num_draws", "comparison_draws", "check_every")
        require_counts(self, "max_samples", optional=True)
        for name, accepted in _CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, found {getattr(self, name)!r}")
        if self.num_restarts > 1 and not self.random_start:
            raise ValueError(f"num_restarts is {self.num_restarts}, but without random_start all runs are the same")

    @property
    def name(self) -> str:
        draws = f" EoT-{self.num_draws}" if self.num_draws > 1 else ""
        ours = "".join(f" {part.name}" for part in (self.objective, self.steps) if part.name)
        return f"PGD-{self.num_iterations}{' targeted' if self.goal.targeted else ''}{ours}{draws}"

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
        compares = self.keep != "last" or self.num_restarts > 1
        measures = partial_function(
            Measures.of,
            recognizer,
            num_draws=self.num_draws,
            comparison_draws=self.comparison_draws if compares else None,
            max_samples=room,
            precision=self.precision,
        )
        outcome = Outcome(batch, num_draws=self.comparison_draws if recognizer.stochastic else 1)
        outcome.state.forwards += self.objective.passes_to_aim(recognizer)
        restart, descent = 0, None
        if start is not None:
            descent = (0, self.steps.run.at(start))
        if (saved := partial.load()) is not None:
            outcome.take_up(saved["outcome"])
            restart, work = saved["restart"], work.select(saved["places"])
            descent = (saved["iteration"], self.steps.run.restored(saved["run"], batch.lengths.device))
        for number in range(restart, self.num_restarts):
            if len(work):
                keep = partial_function(self._keep, partial, outcome, number)
                work = self._descend(measures, work, outcome, keep, first_key=number * Key.RESTART, begun=descent)
            descent = None
        return outcome

    def refining(self, iterations: int) -> Self:
        """With a first step of half the usual length, and three comparisons."""
        every = -(-iterations // _LOOKS)
        return replace(self, steps=_REFINING, num_iterations=iterations, check_every=every)

    def _descend(
        self,
        measures: Callable[[Workload], Measures],
        work: Workload,
        outcome: Outcome,
        keep: Callable[[Workload, Run, int], None],
        *,
        first_key: int,
        begun: tuple[int, Run] | None,
    ) -> Workload:
        """One run, from its start or from the saved state of a killed run. Returns the utterances that have not succeeded yet."""
        first, run = begun if begun is not None else (0, self._start(work, first_key))
        measure, region = measures(work), self.threat.region(work.batch)
        for iteration in range(first, self.num_iterations):
            values, gradient = measure.steps.gradient(work.batch.waveforms + run.delta, step=first_key + iteration)
            run.forwards += measure.steps.forwards
            if self.keep == "value" and not measure.random:
                run.remember(values)
            self.steps.advance(run, values, gradient, region, self.threat, iteration, self.num_iterations)
            if self._looks(iteration):
                if self.stop_on_success:
                    done = self._reached(measure.steps, work, run, step=Key.LOOK_AT_SUCCESS + first_key + iteration)
                    if done.any():
                        work, run = outcome.release(work, run, done)
                        if not len(work):
                            return work
                        measure, region = measures(work), self.threat.region(work.batch)
                self._compare(measure, work, run)
            keep(work, run, iteration + 1)
        self._conclude(measure, work, run)
        outcome.update(work.places, run)
        return work

    def _keep(self, partial: Partial, outcome: Outcome, restart: int, work: Workload, run: Run, iteration: int) -> None:
        position = {"restart": restart, "iteration": iteration, "places": work.places}
        partial.keep(lambda: {**position, "run": vars(run), "outcome": vars(outcome.state)})

    def _start(self, work: Workload, first_key: int) -> Run:
        if self.random_start:
            return self.steps.run.at(
                self.threat.random(work.batch, derive(work.seeds, step=Key.RANDOM_START + first_key))
            )
        return self.steps.run.at(torch.zeros_like(work.batch.waveforms))

    def _looks(self, iteration: int) -> bool:
        return (iteration + 1) % self.check_every == 0 or iteration + 1 == self.num_iterations

    def _reached(self, measure: Expectation, work: Workload, run: Run, *, step: int) -> Tensor:
        """Whether the goal of each utterance is reached on every draw. Shape: (B,) bool, on the CPU."""
        draws = measure.transcripts(work.batch.waveforms + run.delta, step=step)
        run.forwards += measure.num_draws
        return torch.tensor([self.goal.reached(work.texts, texts) for texts in draws]).all(0)

    def _compare(self, measure: Measures, work: Workload, run: Run) -> None:
        """Keep the present perturbation where it is the best so far, on draws that all perturbations are compared on."""
        if self.keep == "damage":
            scores, passes = measure.damage(work.batch.waveforms + run.delta, self.goal)
        elif self.keep == "value" and measure.random:
            scores, passes = measure.value(work.batch.waveforms + run.delta)
        else:
            return
        run.forwards += passes
        run.remember(scores)

    def _conclude(self, measure: Measures, work: Workload, run: Run) -> None:
        """Choose the perturbation that the run returns, and compute its score if runs are compared."""
        if self.keep == "last":
            scores = torch.zeros_like(run.scores)
            if self.num_restarts > 1:
                scores, passes = measure.value(work.batch.waveforms + run.delta)
                run.forwards += passes
            run.best, run.scores = run.delta, scores.to(run.scores)
        elif self.keep == "value" and not measure.random:
            scores, passes = measure.value(work.batch.waveforms + run.delta)
            run.forwards += passes
            run.remember(scores)


@dataclass(frozen=True)
class PaperPGD(PGD):
    """PGD as the papers of this project run it: constant steps on the recogniser's loss, and the last perturbation.

    Sources: Zelasko et al. (2021, eq. 2, where a targeted attack has the wrong sign) and Joshi et al. (2022) for the maximum
    norm, the experiments of Olivier & Raj (2021) for the Euclidean; their steps are the defaults. Starting at x, fewer
    iterations than radii over steps cannot reach the surface of the ball.
    """

    objective: Objective = field(default_factory=Loss)
    num_iterations: int = 7
    steps: Steps = field(default_factory=Constant)
    keep: Literal["last", "value", "damage"] = "last"


_CHOICES = {name: get_args(get_type_hints(PGD)[name]) for name in ("keep", "precision")}

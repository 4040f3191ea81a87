"""Projected gradient descent (Madry et al. 2018) in any ball, with expectation over transformation.

Legend: B utterances, T samples; x a waveform, d its perturbation, r the radius of the ball.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial as partial_function
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Expectation, Precision, room_of
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.progress import Outcome, Run
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.randomness import Key, derive
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Ball, Region
from robust_asr.threat.norms import steepest
from robust_asr.types import AudioBatch, Targets


@dataclass(frozen=True)
class PGD(Attack):
    """d <- P(d + sign * step * direction): a step of steepest ascent in the ball's norm, then projection P into ball and box.

    Each iteration is one forward and backward pass on ``num_draws`` draws of the recogniser, whose gradients are averaged. An
    utterance whose gradient is not finite stops at its last perturbation, with a note; the other utterances continue.

    Sources: Zelasko et al. (2021, eq. 2, where a targeted attack has the wrong sign) and Joshi et al. (2022) for the maximum
    norm, the experiments of Olivier & Raj (2021) for the Euclidean; their steps are the defaults.

    Attributes:
        step_factor: the step divided by the radius; by default the threat model's, 1/5 for ``Linf``, 1/10 for ``L2`` and
            ``SNR``. Starting at x, fewer than 1 / step_factor iterations cannot reach the surface of the ball.
        random_start: start at a random point of the ball instead of at x.
        num_restarts: the number of runs from random starts; each utterance keeps the run with the best loss for the attacker.
        keep: return the last perturbation of a run, or the best by the losses that the iterations compute anyway.
        num_draws: the number of draws of a random recogniser in each iteration.
        stop_on_success: stop attacking an utterance when its goal is reached on ``num_draws`` fresh draws, checked every
            ``check_every`` iterations.
        max_samples: the largest forward pass, utterances times draws times padded length; by default that of one draw of the
            whole batch.
        precision: "bf16-mixed" runs the recogniser under autocast.
    """

    threat: Ball
    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    num_iterations: int = 7
    step_factor: float | None = None
    random_start: bool = False
    num_restarts: int = 1
    keep: Literal["last", "best"] = "last"
    num_draws: int = 1
    stop_on_success: bool = False
    check_every: int = 10
    max_samples: int | None = None
    precision: Precision = "32-true"
    knowledge: Knowledge = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.threat, Ball):
            raise ValueError(f"threat must be a ball such as Linf, L2 or SNR, found {self.threat}")
        for name in ("num_iterations", "num_restarts", "num_draws", "check_every"):
            if not 1 <= getattr(self, name) < Key.RESTART:
                raise ValueError(f"{name} must be at least 1 and below {int(Key.RESTART)}, found {getattr(self, name)}")
        for name, accepted in _CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, found {getattr(self, name)!r}")
        if self.max_samples is not None and self.max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, found {self.max_samples}")
        if self.step_factor is not None and not 0 < self.step_factor <= 2:
            raise ValueError(f"step_factor must lie in (0, 2], found {self.step_factor}: 2 crosses the ball")
        if self.num_restarts > 1 and not self.random_start:
            raise ValueError(f"num_restarts is {self.num_restarts}, but without random_start all runs are the same")

    @property
    def name(self) -> str:
        draws = f" EoT-{self.num_draws}" if self.num_draws > 1 else ""
        return f"PGD-{self.num_iterations}{' targeted' if self.goal.targeted else ''}{draws}"

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        work = Workload.whole(batch, targets, self.goal.texts(batch, seeds=seeds), seeds=seeds)
        expectation = partial_function(
            Expectation,
            recognizer,
            num_draws=self.num_draws,
            max_samples=self.max_samples or room_of(recognizer, batch),
            precision=self.precision,
        )
        outcome = Outcome(batch)
        restart, descent = 0, None
        if (saved := partial.load()) is not None:
            outcome.take_up(saved["outcome"])
            restart, work = saved["restart"], work.select(saved["places"])
            descent = (
                saved["iteration"],
                Run(**{name: value.to(batch.lengths.device) for name, value in saved["run"].items()}),
            )
        for number in range(restart, self.num_restarts):
            if len(work):
                keep = partial_function(self._keep, partial, outcome, number)
                work = self._descend(expectation, work, outcome, keep, first_key=number * Key.RESTART, begun=descent)
            descent = None
        return outcome.perturbation()

    def _descend(
        self,
        expectation: Callable[[Workload], Expectation],
        work: Workload,
        outcome: Outcome,
        keep: Callable[[Workload, Run, int], None],
        *,
        first_key: int,
        begun: tuple[int, Run] | None,
    ) -> Workload:
        """One run, from its start or from the saved state of a killed run. Returns the utterances that have not succeeded yet."""
        first, run = begun if begun is not None else (0, self._start(work, first_key))
        loss, region = expectation(work), self.threat.region(work.batch)
        for iteration in range(first, self.num_iterations):
            losses, gradient = loss.gradient(work.batch.waveforms + run.delta, step=first_key + iteration)
            run.forwards += loss.num_draws
            if self.keep == "best":
                run.remember(self.goal.sign * losses)
            self._step(run, gradient, region)
            if self._looks(iteration):
                done = self._reached(loss, work, run, step=Key.LOOK_AT_SUCCESS + first_key + iteration)
                if done.any():
                    work, run = outcome.release(work, run, done)
                    if not len(work):
                        return work
                    loss, region = expectation(work), self.threat.region(work.batch)
            keep(work, run, iteration + 1)
        self._conclude(loss, work, run)
        outcome.update(work.places, run)
        return work

    def _keep(self, partial: Partial, outcome: Outcome, restart: int, work: Workload, run: Run, iteration: int) -> None:
        position = {"restart": restart, "iteration": iteration, "places": work.places}
        partial.keep(lambda: {**position, "run": vars(run), "outcome": vars(outcome.state)})

    def _start(self, work: Workload, first_key: int) -> Run:
        if self.random_start:
            return Run.at(self.threat.random(work.batch, derive(work.seeds, step=Key.RANDOM_START + first_key)))
        return Run.at(torch.zeros_like(work.batch.waveforms))

    def _step(self, run: Run, gradient: Tensor, region: Region) -> None:
        direction, peak = steepest(gradient, norm=region.norm)
        # These flags stay on the device: reading them on the host in every iteration would make the device wait.
        run.intact &= peak.isfinite()
        run.moved |= run.intact & (peak > 0)
        run.iterations += run.intact
        factor = self.threat.default_step_factor if self.step_factor is None else self.step_factor
        step = self.goal.sign * factor * region.radius * run.intact
        region.project_(run.delta.addcmul_(direction.nan_to_num_(0, 0, 0), step[:, None]))

    def _looks(self, iteration: int) -> bool:
        return self.stop_on_success and (
            (iteration + 1) % self.check_every == 0 or iteration + 1 == self.num_iterations
        )

    def _reached(self, loss: Expectation, work: Workload, run: Run, *, step: int) -> Tensor:
        """Whether the goal of each utterance is reached on every draw. Shape: (B,) bool, on the CPU."""
        draws = loss.transcripts(work.batch.waveforms + run.delta, step=step)
        run.forwards += loss.num_draws
        return torch.tensor([self.goal.reached(work.texts, texts) for texts in draws]).all(0)

    def _conclude(self, loss: Expectation, work: Workload, run: Run) -> None:
        """Choose the perturbation that the run returns, and compute its score if perturbations or runs are compared."""
        scores = torch.zeros_like(run.scores)
        if self.keep == "best" or self.num_restarts > 1:
            # Every run is scored on the same draws, so that their scores can be compared.
            scores = self.goal.sign * loss.loss(work.batch.waveforms + run.delta, step=Key.COMPARISON)
            run.forwards += loss.num_draws
        if self.keep == "best":
            run.remember(scores)
        else:
            run.best, run.scores = run.delta, scores


_CHOICES = {name: get_args(get_type_hints(PGD)[name]) for name in ("keep", "precision")}

"""Loss, gradient and transcripts at one perturbation; a single pass through the recogniser gives all three where it can.

Legend: B utterances, J draws, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Draws, Expectation
from robust_asr.attacks.goals import Goal
from robust_asr.models.base import Recognizer


@dataclass(frozen=True)
class Look:
    """The measurements of an attack at one perturbation.

    Shape: losses (B,) nats; gradient (B, T), or None if it was not requested; hits (B,) float64 on the CPU, the fraction of the
    draws on which the goal is reached, or None if success was not checked.
    """

    losses: Tensor
    gradient: Tensor | None
    hits: Tensor | None


class Hearing:
    """Measures a workload: losses and their gradient on ``num_draws`` draws, success on ``success_draws`` draws.

    Draw j of a step is the same for losses and success. With equal numbers of draws, one pass therefore gives both
    (``Recognizer.loss_and_transcripts``). A recogniser with ``stochastic = False`` gets one draw, because its draws are equal.

    Attributes:
        forwards: passes of each utterance in a look that measures losses only.
        check_forwards: the additional passes of a look that checks success too.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        work: Workload,
        *,
        num_draws: int = 1,
        success_draws: int = 1,
        max_samples: int | None = None,
    ) -> None:
        if not recognizer.stochastic:
            num_draws = success_draws = 1
        self.work = work
        self._together = num_draws == success_draws
        self._losses = Expectation(recognizer, work, num_draws=num_draws, max_samples=max_samples)
        self._success = Expectation(recognizer, work, num_draws=success_draws, max_samples=max_samples)
        self.forwards = num_draws
        if self._together:
            self.check_forwards = num_draws * (recognizer.forwards_per_look - 1)
        else:
            self.check_forwards = success_draws * recognizer.forwards_per_transcript

    def look(self, waveforms: Tensor, goal: Goal, *, step: int, gradient: bool, check: bool) -> Look:
        """Losses; with ``gradient`` their gradient too, with ``check`` success too. Shape: (B, T)."""
        together = check and self._together
        losses, slopes, heard = self._losses.look(waveforms, step=step, gradient=gradient, listen=together)
        if check and not together:
            heard = self._success.transcripts(waveforms, step=step)
        return Look(losses, slopes, self._hits(heard, goal) if check else None)

    def _hits(self, heard: Draws, goal: Goal) -> Tensor:
        return torch.tensor([goal.reached(self.work.texts, draw) for draw in heard], dtype=torch.float64).mean(0)

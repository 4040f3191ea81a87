"""Which of several perturbations of an utterance is the best for the attacker.

Legend: B utterances, J draws, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Expectation
from robust_asr.attacks.goals import Goal
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key


@dataclass(frozen=True)
class Measures:
    """The measurements of one workload: ``steps`` on the draws of an iteration, ``common`` on the draws of every comparison.

    Perturbations of a random recogniser are compared on the same draws, which no iteration and no verdict uses: a perturbation
    whose score is the best of many single draws was lucky, not strong.
    """

    steps: Expectation
    common: Expectation

    @classmethod
    def of(
        cls, recognizer: Recognizer, work: Workload, *, num_draws: int, comparison_draws: int | None, **settings: Any
    ) -> Measures:
        """``comparison_draws`` is None where nothing is compared."""
        steps = Expectation(recognizer, work, num_draws=num_draws, **settings)
        # All draws of a recogniser that is not random are equal.
        if comparison_draws is None or not recognizer.stochastic:
            return cls(steps, steps)
        return cls(steps, Expectation(recognizer, work, num_draws=comparison_draws, **settings))

    @property
    def random(self) -> bool:
        return self.common.recognizer.stochastic

    def value(self, waveforms: Tensor) -> tuple[Tensor, int]:
        """The mean value of the objective, and the passes that this costs an utterance. Shape: (B, T) -> (B,)."""
        return self.common.loss(waveforms, step=Key.COMPARISON), self.common.forwards

    def damage(self, waveforms: Tensor, goal: Goal) -> tuple[Tensor, int]:
        """The mean damage to the transcript, and the passes that this costs; the mean value orders equal damages.

        Shape: (B, T) -> (B,) float64.
        """
        values, _, draws = self.common.look(waveforms, step=Key.COMPARISON, listen=True)
        counts = [
            [goal.damage(text, heard) for text, heard in zip(self.common.work.texts, draw, strict=True)]
            for draw in draws
        ]
        damage = torch.tensor(counts, dtype=torch.float64).mean(0)
        # Damages are whole numbers over J. The arc tangent rises with its argument and is bounded: it never outweighs one of J.
        order = values.double().cpu().atan() / (4 * len(draws) * torch.pi)
        # A look holds one pass of the loss already.
        passes = self.common.forwards + self.common.num_draws * (self.common.recognizer.forwards_per_look - 1)
        return (damage + order).to(waveforms.device), passes

"""How long an audit will take: a timed trial of one utterance, times what the settings ask for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from robust_asr.attacks.base import Attack
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.pgd import PGD
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.types import AudioBatch

# Passes of the live checks for each utterance: of a system and the first gradient towards it, of the gradient of another goal, of
# an attack's first iterations, and of noise (counted: tests.robust_asr.audit.test_duration).
_OF_A_SYSTEM, _OF_A_GOAL, _OF_AN_ATTACK, _OF_NOISE = 80, 18, 5, 1
_CHECKED = 3


@dataclass(frozen=True)
class Pace:
    """Seconds of one utterance of average length: a loss, a loss with its gradient, and a loss with its transcript."""

    loss: float
    gradient: float
    look: float

    @classmethod
    def of(cls, recognizer: Recognizer, utterance: AudioBatch, *, share: float) -> Pace:
        """Measured on one utterance, whose cost is ``share`` times that of the average one. The first call of each is not timed."""
        targets, given = recognizer.targets(utterance.texts), (utterance.waveforms, utterance.lengths)
        seeds = utterance_seeds(0, utterance.ids)
        work: tuple[Callable[[], Any], ...] = (
            lambda: recognizer.loss(*given, targets, seeds=seeds).tolist(),
            lambda: input_gradient(lambda values: recognizer.loss(values, given[1], targets, seeds=seeds), given[0])[
                0
            ].tolist(),
            lambda: recognizer.loss_and_transcripts(*given, targets, seeds=seeds)[0].tolist(),
        )
        with frozen_for_attack(recognizer):
            return cls(*(_seconds(each) / share for each in work))

    def of_condition(self, attack: Attack, recognizer: Recognizer) -> float:
        """Of one utterance under a condition, with the verdict on it."""
        return self.look + (self._of_pgd(attack, recognizer) if isinstance(attack, PGD) else 0.0)

    def of_search(self, search: BreakingPoint, recognizer: Recognizer) -> float:
        """Of one utterance whose breaking point is searched: its attacks, and a look at each and at its neighbours."""
        tries = math.ceil(math.log2(search.num_budgets)) + 1
        looks = (1 + 3 * tries) * (search.comparison_draws if recognizer.stochastic else 1) * self.look
        return tries * self._of_pgd(search.attack, recognizer) + looks

    def of_checks(self, conditions: Mapping[str, Attack]) -> float:
        """Of one system, on each of the utterances that the live checks take."""
        attacks = [attack for attack in conditions.values() if isinstance(attack, PGD)]
        goals = len({attack.goal for attack in attacks})
        passes = _OF_A_SYSTEM + _OF_A_GOAL * goals + _OF_NOISE * (len(conditions) - len(attacks))
        return passes * self.loss + _OF_AN_ATTACK * len(attacks) * self.gradient

    def _of_pgd(self, attack: PGD, recognizer: Recognizer) -> float:
        steps = attack.num_draws if recognizer.stochastic else 1
        draws = attack.comparison_draws if recognizer.stochastic else 1
        looks = 0 if attack.keep == "last" else math.ceil(attack.num_iterations / attack.check_every) * draws
        return attack.num_iterations * steps * self.gradient + looks * self.look


def of_evaluation(
    pace: Pace, systems: Sequence[Recognizer], conditions: Mapping[str, Attack], *, utterances: int, batch: int
) -> float:
    """Seconds of all rows and of the live checks, which take up to three utterances of the first batch."""
    rows = sum(pace.of_condition(attack, system) for system in systems for attack in conditions.values())
    return utterances * rows + min(batch, _CHECKED) * len(systems) * pace.of_checks(conditions)


def in_words(seconds: float) -> str:
    """90 -> "2 minutes"; a trial of one utterance knows no better."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _seconds(work: Callable[[], Any]) -> float:
    with torch.enable_grad():
        work()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

"""Attacks of many strengths for an adversarial set to train on (JO22).

Legend: B utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, derive, keyed_uniform
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import L2, Linf, ThreatModel, Unbounded
from robust_asr.types import AudioBatch, Status, Targets

_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True)
class OfflinePGD(Attack):
    """PGD whose norm, budget and number of iterations are drawn for each utterance, strong values more often than weak ones.

    Both norms are equally likely. In each list, sorted from weak to strong, the r-th value is drawn with a probability
    proportional to r. JO22 give the lists and say that larger norms and more iterations are drawn more often; these
    probabilities are our reading. The draw depends only on the seed of the utterance, so any number of ranks makes the same set.

    Each perturbation is verified against the ball that was drawn for it; the attack as a whole has no common bound.

    Attributes:
        linf, l2: lists of budgets, in full-scale amplitude, in rising order; an empty list leaves its norm out.
        iterations: the possible numbers of iterations, in rising order.
        step_factor: the step divided by the radius, in both norms.
    """

    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    linf: Sequence[float] = (0.001, 0.01, 0.1)
    l2: Sequence[float] = (0.2, 0.5, 1.5, 1.9)
    iterations: Sequence[int] = (10, 20, 50, 100, 200)
    step_factor: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.linf and not self.l2:
            raise ValueError("linf and l2: one of them must hold a budget, found none")
        if not self.iterations:
            raise ValueError("iterations: must hold a number, found none")
        for name in ("linf", "l2", "iterations"):
            values = tuple(getattr(self, name))
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} must rise, found {values}")
            object.__setattr__(self, name, values)
        # Every combination is built once, so that PGD and its threat models check the ranges of the values.
        for choice in (choice for norm in self._norms for choice in self._choices(norm)):
            self._attack(*choice)

    @property
    def threat(self) -> ThreatModel:
        return Unbounded()

    @property
    def name(self) -> str:
        return f"offline PGD{' targeted' if self.goal.targeted else ''}"

    def drawn(self, seeds: Tensor) -> list[PaperPGD]:
        """The attack that is drawn for each utterance. Shape: seeds (B,) -> B attacks."""
        norms, budgets, iterations = (
            keyed_uniform(derive(seeds, draw=key)).tolist()
            for key in (Key.OFFLINE_NORM, Key.OFFLINE_RADIUS, Key.OFFLINE_ITERATIONS)
        )
        attacks = []
        for row in range(len(seeds)):
            norm = self._norms[int(norms[row] * len(self._norms))]
            eps = _biased(getattr(self, norm), budgets[row])
            attacks.append(self._attack(norm, eps, _biased(self.iterations, iterations[row])))
        return attacks

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        waveforms = batch.waveforms.clone()
        iterations, forwards = torch.zeros(2, len(batch), dtype=torch.long)
        status = [Status.ATTACKED] * len(batch)
        groups: dict[PaperPGD, list[int]] = {}
        for row, attack in enumerate(self.drawn(seeds)):
            groups.setdefault(attack, []).append(row)
        for attack, rows in groups.items():
            part, places = batch.select(rows), torch.tensor(rows)
            made = attack.perturb(recognizer, part, targets.select(places), seeds=seeds[places], partial=NOWHERE)
            attack.verify(made.waveforms, part)
            waveforms[rows, : made.waveforms.shape[1]] = made.waveforms
            iterations[places], forwards[places] = made.iterations.cpu(), made.forwards.cpu()
            for row, given in zip(rows, made.status, strict=True):
                status[row] = given
        return Perturbation(waveforms, iterations, forwards, tuple(status))

    @property
    def _norms(self) -> list[str]:
        return [name for name in ("linf", "l2") if getattr(self, name)]

    def _choices(self, norm: str) -> list[tuple[str, float, int]]:
        return [(norm, eps, count) for eps in getattr(self, norm) for count in self.iterations]

    def _attack(self, norm: str, eps: float, num_iterations: int) -> PaperPGD:
        threat = Linf(eps) if norm == "linf" else L2(eps)
        return PaperPGD(threat, goal=self.goal, num_iterations=num_iterations, steps=Constant(self.step_factor))


def _biased(values: Sequence[_Value], uniform: float) -> _Value:
    """Pick a value with a probability proportional to its rank; ``uniform`` is a random number in [0, 1)."""
    total = len(values) * (len(values) + 1) / 2
    upper_end = 0.0
    for rank, value in enumerate(values, start=1):
        upper_end += rank / total
        if uniform < upper_end:
            return value
    return values[-1]

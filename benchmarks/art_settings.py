"""The search over ART's settings: all attacks of ART that apply, with several steps, iterations and batch sizes.

The best setting is the baseline for our attack. It is chosen on the same utterances that are reported, which favours ART.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import ImperceptibleASR, ProjectedGradientDescent
from art.attacks.evasion.adversarial_asr import CarliniWagnerASR
from art.attacks.evasion.imperceptible_asr.imperceptible_asr import PsychoacousticMasker

from benchmarks.art_adapter import Estimator, FirstStage, RaggedImperceptible, ragged
from robust_asr.attacks.cw import FULL_SCALE
from robust_asr.types import AudioBatch

Family = Literal["PGD", "PGD targeted", "CW", "Imperceptible"]

# Pairs of steps for the first and the second stage: for PGD divided by the radius, for the other attacks in 16-bit steps.
_STEPS: dict[str, tuple[tuple[float, float], ...]] = {
    "ProjectedGradientDescent": ((0.1, 0), (0.2, 0), (0.5, 0)),
    "CarliniWagnerASR": ((10, 0), (100, 0)),
    "ImperceptibleASRPyTorch, stage 1": ((10, 0), (100, 0)),
    "ImperceptibleASR": ((100, 1), (100, 0.1), (10, 1)),
    "ImperceptibleASRPyTorch": ((100, 1), (100, 0.1), (10, 1)),
}
_CLASSES: dict[Family, tuple[str, ...]] = {
    "PGD": ("ProjectedGradientDescent",),
    "PGD targeted": ("ProjectedGradientDescent",),
    "CW": ("CarliniWagnerASR", "ImperceptibleASRPyTorch, stage 1"),
    "Imperceptible": ("ImperceptibleASR", "ImperceptibleASRPyTorch"),
}
_ITERATIONS = (0.5, 1.0)


@dataclass(frozen=True)
class Setting:
    """One row of the search. ``bound`` is the radius, or the initial bound; ``iterations`` is the total over all stages."""

    attack: str
    bound: float
    steps: tuple[float, float]
    iterations: int
    targeted: bool = True

    def __str__(self) -> str:
        second = f" and {self.steps[1]:g}" if self.steps[1] else ""
        return f"{self.attack}, step {self.steps[0]:g}{second}, {self.iterations} iterations"

    def generate(self, estimator: Estimator, batch: AudioBatch, texts: tuple[str, ...]) -> np.ndarray:
        """Attacked waveforms, (B, T) or (B,) of (t,). Padded rows are faster and used if ART can keep the padding at zero."""
        estimator.attend(batch)
        padded = batch.waveforms.cpu().numpy()
        lengths = batch.lengths.tolist()
        if self.attack.startswith("Imperceptible") and min(lengths) < padded.shape[1]:
            padded = ragged(row[:length].copy() for row, length in zip(padded, lengths, strict=True))
        return self._attack(estimator, len(batch), batch.waveforms.shape[1]).generate(padded, np.array(texts))

    def _attack(self, estimator: Estimator, size: int, longest: int) -> EvasionAttack:
        if self.attack == "ProjectedGradientDescent":
            return ProjectedGradientDescent(
                estimator,
                eps=self.bound,
                eps_step=self.steps[0] * self.bound,
                max_iter=self.iterations,
                targeted=self.targeted,
                batch_size=size,
                verbose=False,
            )
        first, second = (step / FULL_SCALE for step in self.steps)
        if self.attack == "CarliniWagnerASR":
            return CarliniWagnerASR(
                estimator, eps=self.bound, learning_rate=first, max_iter=self.iterations, batch_size=size
            )
        if self.attack == "ImperceptibleASRPyTorch, stage 1":
            return FirstStage(estimator, max_iter_1=self.iterations, **self._adam(first, size, longest))
        stages = {"max_iter_1": self.iterations // 2, "max_iter_2": self.iterations - self.iterations // 2}
        if self.attack == "ImperceptibleASR":
            masker = PsychoacousticMasker(sample_rate=estimator.sample_rate)
            rates = {"learning_rate_1": first, "learning_rate_2": second}
            return ImperceptibleASR(estimator, masker, eps=self.bound, batch_size=size, **rates, **stages)
        return RaggedImperceptible(estimator, learning_rate_2=second, **stages, **self._adam(first, size, longest))

    def _adam(self, rate: float, size: int, longest: int) -> dict[str, float]:
        """The paper's schedules. ART's own defaults check the transcript in every iteration and start with an alpha of 1.2."""
        return {
            "eps": self.bound,
            "learning_rate_1": rate,
            "num_iter_decrease_eps": 10,
            "alpha": 0.05,
            "num_iter_decrease_alpha": 50,
            "batch_size": size,
            "global_max_length": longest,
        }


def search(family: Family, *, bound: float, iterations: int) -> Iterator[Setting]:
    for attack in _CLASSES[family]:
        for steps in _STEPS[attack]:
            for share in _ITERATIONS:
                yield Setting(attack, bound, steps, max(int(share * iterations), 1), targeted=family != "PGD")

"""Threat models whose radius is drawn for each utterance: what adversarial training meets."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from robust_asr.masking import masked
from robust_asr.randomness import Key, derive, keyed_uniform, utterance_seeds
from robust_asr.threat import Ball
from robust_asr.threat.norms import Norm, maximum
from robust_asr.types import AudioBatch


@dataclass(frozen=True)
class LinfRange(Ball):
    """No sample moves by more than eps, which is drawn for each utterance, log-uniform between two bounds.

    The draw is keyed by (seed, utterance, step): it does not depend on the batch, the rank or a resume, and training moves on
    ``step`` from epoch to epoch.

    Source: Joshi et al. (2022), from [1e-4, 0.02]; that the draw is per utterance is our reading.

    Units: bounds, radius and size in full-scale amplitude.
    """

    eps_min: float
    eps_max: float
    _: KW_ONLY
    seed: int = 0
    step: int = 0
    norm: ClassVar[Norm] = "linf"
    default_step_factor: ClassVar[float] = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.eps_min <= self.eps_max <= 1:
            found = f"{self.eps_min} and {self.eps_max}"
            raise ValueError(f"eps_min and eps_max must obey 0 < min <= max <= 1, full-scale amplitude, found {found}")

    def of_epoch(self, *, seed: int, epoch: int) -> LinfRange:
        return replace(self, seed=seed, step=epoch)

    def radius(self, batch: AudioBatch) -> Tensor:
        seeds = derive(utterance_seeds(self.seed, batch.ids, step=self.step), draw=Key.RADIUS)
        low, high = math.log(self.eps_min), math.log(self.eps_max)
        drawn = (low + (high - low) * keyed_uniform(seeds).double()).exp().clamp(self.eps_min, self.eps_max)
        return drawn.to(batch.waveforms)

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return maximum(masked(delta.to(torch.float64), batch.lengths))

    def columns(self) -> dict[str, Any]:
        return {"norm": "Linf", "strength": f"{self.eps_min:g} to {self.eps_max:g}", "strength_unit": "amplitude"}

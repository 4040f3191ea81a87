"""Gaussian augmentation: white noise on the training audio (OR21 section 4.2; ZE21 section IV-A)."""

from __future__ import annotations

from typing import Any

import torch

from lightning_modules.recognition import Recognition
from robust_asr.models.base import Recognizer
from robust_asr.randomness import derive, keyed_normal, keyed_uniform, utterance_seeds
from robust_asr.types import AudioBatch


class GaussianAugmentation(Recognition):
    """Recognition on audio with white Gaussian noise, whose standard deviation is drawn per utterance from U(sigma_min, sigma_max).

    OR21: ``sigma_min = sigma_max``, the sigma that is used at inference, one epoch from a clean checkpoint.
    ZE21: U(0, 0.3), from scratch. The noisy audio is not clamped.

    The noise is keyed by (seed, utterance, epoch).

    Args:
        recognition: the other arguments of ``Recognition``.

    Units: sigma in full-scale amplitude.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        sigma_max: float,
        sigma_min: float = 0.0,
        **recognition: Any,
    ) -> None:
        super().__init__(recognizer, **recognition)
        if not 0 <= sigma_min <= sigma_max <= 1:
            raise ValueError(
                f"sigma_min and sigma_max must obey 0 <= min <= max <= 1, found {sigma_min} and {sigma_max}"
            )
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def perturb(self, batch: AudioBatch) -> AudioBatch:
        seeds = utterance_seeds(self.seed, batch.ids, step=self.current_epoch)
        sigma = torch.lerp(
            torch.tensor(self.sigma_min), torch.tensor(self.sigma_max), keyed_uniform(derive(seeds, draw=1))
        )
        noise = keyed_normal(seeds, batch.lengths, batch.waveforms.shape[1])
        return batch.replace(batch.waveforms + sigma[:, None].to(noise) * noise)

"""The Gaussian noise of randomised smoothing."""

from __future__ import annotations

from torch import Tensor

from robust_asr.defenses.base import Defense
from robust_asr.masking import masked
from robust_asr.randomness import fresh_seeds, keyed_normal


class GaussianNoise(Defense):
    """White Gaussian noise before recognition: randomised smoothing with one draw (Cohen et al. 2019; OR21).

    The noisy audio may leave [-1, 1] and is not clamped, for two reasons. Neither OR21's implementation nor the Gaussian
    augmentation in our training clamps it, so hardened recognisers have seen such audio. And the gradient of a clamp is zero
    where it cuts, which would hide loud samples from an attack.

    The noise of an utterance depends only on its seed, so two sigmas are the same noise at two volumes.

    Units: sigma in full-scale amplitude; OR21 uses 0.01 and 0.02, ZE21 0.01, JO22 0.001.
    """

    name = "RS"
    stochastic = True

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not 0 <= sigma <= 1:
            raise ValueError(f"sigma must lie in [0, 1], full-scale amplitude, found {sigma}")
        self.sigma = sigma
        self.sigmas = (sigma,)

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seeds = fresh_seeds(len(waveforms)) if seeds is None else seeds
        noise = keyed_normal(seeds, lengths, waveforms.shape[1], device=waveforms.device)
        return masked(waveforms, lengths) + self.sigma * noise.to(waveforms.dtype), lengths

"""A denoiser in front of the recogniser."""

from __future__ import annotations

from torch import Tensor, nn

from robust_asr.defenses.base import Defense
from robust_asr.masking import masked


class Denoise(Defense):
    """A network that takes the perturbation out of the waveform (JO22).

    Its gradient is its own: an attack on the defended recogniser goes through it.

    Args:
        network: from waveforms (B, T) and lengths (B,) to waveforms (B, T), such as ``robust_asr.models.conv_tasnet.ConvTasNet``.
    """

    name = "Denoiser"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        denoised = self.network(masked(waveforms, lengths), lengths)
        if denoised.shape != waveforms.shape:
            found = f"{tuple(waveforms.shape)} into {tuple(denoised.shape)}"
            raise ValueError(f"network: must keep the number of samples, but made {found}")
        return masked(denoised, lengths), lengths

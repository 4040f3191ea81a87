"""Kaldi's log-mel filter bank, differentiable and in batches.

Legend: B utterances, T samples, F frames, W samples a window, M mel bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import masked

WINDOW, HOP, FFT_SIZE = 400, 160, 512
# Kaldi's frame number k begins this many samples before the hop number k.
_REACH = (WINDOW - HOP) // 2


class KaldiFbank(nn.Module):
    """Log-mel energies as Kaldi computes them, for audio in [-1, 1] at 16 kHz: the front end of Joshi et al. 2022.

    Windows of 25 ms every 10 ms, offset removal and pre-emphasis within each window, Povey window, 512-point FFT, triangles on
    the mel scale; no dither, ``snip_edges`` off. As in Kaldi, the audio is mirrored at both ends of each utterance, at its own
    end and not at the end of the batch, so frames do not depend on the padding. Energies below the floor are raised to the
    floor and have gradient zero; only noise below one 16-bit step is so weak. Audio shorter than half a hop gives one frame,
    where Kaldi gives none.

    Units: low_freq and high_freq in hertz, a high_freq below 1 is relative to the Nyquist frequency; energy_floor in
        the power of full-scale audio.
    Shape: waveforms (B, T), lengths (B,) -> (B, F, M), zero in the padding; frame_lengths (B,).
    """

    def __init__(
        self,
        *,
        num_mels: int = 80,
        low_freq: float = 20.0,
        high_freq: float = -400.0,
        preemphasis: float = 0.97,
        energy_floor: float = torch.finfo(torch.float32).eps,
    ) -> None:
        super().__init__()
        nyquist = 8000.0
        highest = high_freq if high_freq >= 1 else nyquist + high_freq
        if num_mels < 1 or not 0 <= low_freq < highest <= nyquist or not 0 <= preemphasis <= 1 or not energy_floor > 0:
            raise ValueError(
                "a Kaldi filter bank needs num_mels >= 1, 0 <= low_freq < high_freq <= 8000, preemphasis in [0, 1] and "
                f"energy_floor > 0, got num_mels={num_mels}, low_freq={low_freq}, high_freq={high_freq}, "
                f"preemphasis={preemphasis}, energy_floor={energy_floor}"
            )
        self.num_mels = num_mels
        self.low_freq = low_freq
        self.high_freq = high_freq
        self.preemphasis = preemphasis
        self.energy_floor = energy_floor
        taper = torch.hann_window(WINDOW, periodic=False).pow(0.85)
        self.register_buffer("taper", taper, persistent=False)
        self.register_buffer("filters", mel_triangles(num_mels, low=low_freq, high=highest), persistent=False)

    @staticmethod
    def num_frames(lengths: Tensor) -> Tensor:
        """The number of frames of each utterance. Shape: (B,) samples -> (B,) frames."""
        return ((lengths + HOP // 2) // HOP).clamp(min=1)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        # The range of the energies is too large for half precision.
        with torch.autocast(waveforms.device.type, enabled=False):
            windows = self._windows(masked(waveforms, lengths), lengths)
            windows = windows - windows.mean(-1, keepdim=True)
            before = torch.cat([windows[..., :1], windows[..., :-1]], -1)
            spectra = torch.fft.rfft((windows - self.preemphasis * before) * self.taper, n=FFT_SIZE)
            power = spectra.real.square() + spectra.imag.square()
            features = (power @ self.filters).clamp(min=self.energy_floor).log()
        frame_lengths = self.num_frames(lengths)
        return masked(features, frame_lengths), frame_lengths

    def _windows(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """The windows of each utterance, mirrored at its ends as often as necessary. Shape: (B, T) -> (B, F, W)."""
        # The size of the tensor is used, because the longest length would have to be fetched from the GPU.
        num_frames = max((waveforms.shape[1] + HOP // 2) // HOP, 1)
        positions = torch.arange(-_REACH, (num_frames - 1) * HOP + WINDOW - _REACH, device=waveforms.device)
        lengths = lengths.clamp(min=1)[:, None]
        folded = positions % (2 * lengths)
        mirrored = waveforms.gather(1, torch.minimum(folded, 2 * lengths - 1 - folded))
        return mirrored.unfold(1, WINDOW, HOP)


def mel_triangles(num_mels: int, *, low: float, high: float) -> Tensor:
    """Kaldi's filters: triangles of equal width on the scale 1127 ln(1 + f / 700), of height 1, none at the Nyquist frequency.

    Units: low and high in hertz. Shape: (FFT bins, M).
    """
    # Python floats, because under torch.device("meta"), which checkpoint.load uses, tensors have no values.
    lowest, width = _mel(low), (_mel(high) - _mel(low)) / (num_mels + 1)
    bins = torch.tensor([_mel(16_000 * index / FFT_SIZE) for index in range(FFT_SIZE // 2)], dtype=torch.float64)
    rising = (bins[:, None] - lowest) / width - torch.arange(num_mels, dtype=torch.float64)
    triangles = torch.minimum(rising, 2 - rising).clamp(min=0)
    return functional.pad(triangles, (0, 0, 0, 1)).float()


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)

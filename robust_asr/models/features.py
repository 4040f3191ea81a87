"""Front ends: from waveforms to frames of features, independent of an utterance's batch and padding.

Legend: B utterances, T samples, F frames, M mel bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from robust_asr.masking import length_mask, masked


class LogMel(nn.Module):
    """Log mel energies of a centred short-time Fourier transform.

    The audio past an utterance's end counts as silence, in a batch and alone, so frames do not depend on the padding.
    The floor is added to the energy, not applied as a clamp, so the gradient in the waveform is finite everywhere and is zero
    only in digital silence.

    Units: window and hop in seconds; energy_floor in the power of a Hann-windowed full-scale signal.
    Shape: waveforms (B, T), lengths (B,) -> (B, F, M), frame_lengths (B,), with F = T // hop + 1.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        num_mels: int = 64,
        window: float = 0.025,
        hop: float = 0.010,
        energy_floor: float = 1e-6,
    ) -> None:
        super().__init__()
        if num_mels < 1 or not 0 < hop <= window or not energy_floor > 0:
            raise ValueError(
                "a log-mel front end needs num_mels >= 1, 0 < hop <= window and energy_floor > 0, "
                f"got num_mels={num_mels}, window={window}, hop={hop}, energy_floor={energy_floor}"
            )
        self.sample_rate = sample_rate
        self.num_mels = num_mels
        self.window = window
        self.hop = hop
        self.energy_floor = energy_floor
        self.window_samples = round(window * sample_rate)
        self.hop_samples = round(hop * sample_rate)
        self.fft_size = 2 ** (self.window_samples - 1).bit_length()
        # torchaudio reads the values of these tensors; on the meta device, which checkpoint.load uses, they would have none.
        with torch.device("cpu"):
            filters = melscale_fbanks(
                self.fft_size // 2 + 1, 0.0, sample_rate / 2, num_mels, sample_rate, mel_scale="htk"
            )
        self.register_buffer("taper", torch.hann_window(self.window_samples), persistent=False)
        self.register_buffer("filters", filters.T.contiguous().to(self.taper.device), persistent=False)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Shape: (B,) samples -> (B,) frames."""
        return lengths // self.hop_samples + 1

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        # The range of the energies is too large for half precision.
        with torch.autocast(waveforms.device.type, enabled=False):
            spectra = torch.stft(
                masked(waveforms, lengths),
                self.fft_size,
                self.hop_samples,
                self.window_samples,
                self.taper,
                center=True,
                pad_mode="constant",
                return_complex=True,
            )
            power = spectra.real.square() + spectra.imag.square()
            log_energies = (self.filters @ power + self.energy_floor).log().transpose(1, 2)
        frame_lengths = self.num_frames(lengths)
        return masked(log_energies, frame_lengths), frame_lengths


def normalize_utterance(features: Tensor, frame_lengths: Tensor, *, eps: float = 1e-2) -> Tensor:
    """Mean 0 and variance 1 for every bin of every utterance, over its valid frames only; zero in the padding.

    ``eps`` is added to the variance, so that a nearly constant bin (silence, a single frame) stays near 0.

    Shape: features (B, F, M), frame_lengths (B,) -> (B, F, M).
    """
    mask = length_mask(frame_lengths, features.shape[1])[:, :, None].to(features.dtype)
    counts = frame_lengths.clamp(min=1)[:, None, None].to(features.dtype)
    centred = (features - (features * mask).sum(1, keepdim=True) / counts) * mask
    variance = centred.square().sum(1, keepdim=True) / counts
    return centred * (variance + eps).rsqrt()

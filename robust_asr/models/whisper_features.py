"""Whisper's front end, differentiable and in batches.

Legend: B utterances, T samples, F frames, M mel bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import melscale_fbanks

from robust_asr.masking import masked

SAMPLE_RATE, FFT_SIZE, HOP = 16_000, 400, 160
# Energies are raised to this power, and then to eight powers of ten below the loudest energy of the utterance.
_FLOOR, _RANGE = 1e-10, 8.0


class WhisperLogMel(nn.Module):
    """The log-mel spectrogram of ``WhisperFeatureExtractor``, as a function of the waveform that torch can differentiate.

    Each utterance is followed by silence up to the window, whatever the padding of its batch holds, so its frames are those that
    it has alone. Energies below the floor have gradient zero. A floor that follows the loudest energy of an utterance passes the
    gradients of all energies below the floor on to that energy.

    Units: window in samples, 480,000 for the published models.
    Shape: waveforms (B, T), of which at most a window is heard -> (B, M, F), with F = window / 160.

    Source: Radford et al. 2022, section 2.2, and ``WhisperFeatureExtractor`` of transformers.
    """

    def __init__(self, *, num_mels: int = 80, window: int = 30 * SAMPLE_RATE) -> None:
        super().__init__()
        if num_mels < 1 or window < FFT_SIZE or window % HOP:
            raise ValueError(
                f"Whisper's front end needs num_mels >= 1 and a window of {FFT_SIZE} samples or more that is a multiple of {HOP}, "
                f"got num_mels={num_mels}, window={window}"
            )
        self.num_mels = num_mels
        self.window = window
        # torchaudio reads the values of these tensors; on the meta device, which checkpoint.load uses, they would have none.
        with torch.device("cpu"):
            filters = melscale_fbanks(
                FFT_SIZE // 2 + 1, 0.0, SAMPLE_RATE / 2, num_mels, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
            )
        self.register_buffer("taper", torch.hann_window(FFT_SIZE), persistent=False)
        self.register_buffer("filters", filters.T.contiguous().to(self.taper.device), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        audio = masked(waveforms, lengths)[:, : self.window]
        audio = functional.pad(audio, (0, self.window - audio.shape[1]))
        # The range of the energies is too large for half precision.
        with torch.autocast(waveforms.device.type, enabled=False):
            spectra = torch.stft(audio, FFT_SIZE, HOP, window=self.taper, return_complex=True)[..., :-1]
            # Not abs() squared, which has no gradient at zero.
            power = spectra.real.square() + spectra.imag.square()
            levels = (self.filters @ power).clamp(min=_FLOOR).log10()
            loudest = levels.amax((1, 2), keepdim=True)
            return (torch.maximum(levels, loudest - _RANGE) + 4) / 4

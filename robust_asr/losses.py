"""Losses per utterance: CTC, and distances between waveforms. The padding never counts.

Legend: B utterances, T samples, F frames, K frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import length_mask, masked
from robust_asr.types import TokenTargets

# The smallest squared magnitude, as in auraloss: without it the logarithm and its gradient are infinite at zero.
_POWER_FLOOR = 1e-8


class MultiResolutionSTFT(nn.Module):
    """Distance of two magnitude spectrograms at several resolutions (Yamamoto et al. 2020; JO22 eq. 3-6).

    The distance at one resolution is the spectral convergence || |X| - |Y| ||_F / || |X| ||_F plus the mean of
    |log |X| - log |Y|| over time and frequency. The loss is the mean over the resolutions. (JO22 print a sum, which is the same
    up to a factor of three in the learning rate.)

    The loss of an utterance does not depend on its batch: it uses the frames that the utterance has without padding, and the
    audio is mirrored at the utterance's own ends. A norm over the whole batch would let long and loud utterances dominate.

    Args:
        fft_sizes, hops, windows: in samples, one value for each resolution.
        quietest: the smallest root mean square magnitude of a reference that the spectral convergence divides by, so that a
            silent reference does not make the loss explode. White noise of -63 dB has 0.01 at the default window of 600.
    """

    def __init__(
        self,
        fft_sizes: Sequence[int] = (1024, 2048, 512),
        hops: Sequence[int] = (120, 240, 50),
        windows: Sequence[int] = (600, 1200, 240),
        *,
        quietest: float = 0.01,
    ) -> None:
        super().__init__()
        if not len(fft_sizes) == len(hops) == len(windows) > 0:
            counts = f"{len(fft_sizes)}, {len(hops)} and {len(windows)}"
            raise ValueError(f"fft_sizes, hops and windows must be of one length, at least 1, found {counts}")
        for fft_size, hop, window in zip(fft_sizes, hops, windows, strict=True):
            if not 0 < window <= fft_size or not 0 < hop <= fft_size or fft_size % 2:
                sizes = f"({fft_size}, {hop}, {window})"
                raise ValueError(f"a resolution must obey 0 < window, hop <= fft_size, which is even, found {sizes}")
        if not 0 < quietest < float("inf"):
            raise ValueError(f"quietest must be finite and positive, found {quietest}")
        self.fft_sizes, self.hops, self.windows = tuple(fft_sizes), tuple(hops), tuple(windows)
        self.quietest = quietest
        for window in self.windows:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, estimates: Tensor, references: Tensor, lengths: Tensor) -> Tensor:
        """The loss of each utterance. Shape: estimates and references (B, T), lengths (B,) -> (B,)."""
        if estimates.shape != references.shape:
            shapes = f"{tuple(estimates.shape)} and {tuple(references.shape)}"
            raise ValueError(f"estimates and references must have one shape, found {shapes}")
        resolutions = zip(self.fft_sizes, self.hops, self.windows, strict=True)
        losses = [self._at(estimates, references, lengths, *resolution) for resolution in resolutions]
        return torch.stack(losses).mean(0)

    def _at(
        self, estimates: Tensor, references: Tensor, lengths: Tensor, fft_size: int, hop: int, window: int
    ) -> Tensor:
        frame_lengths = lengths // hop + 1
        taps = getattr(self, f"window_{window}")
        powers = [
            _powers(mirrored(waveforms, lengths, fft_size // 2), fft_size, hop, taps)
            for waveforms in (estimates, references)
        ]
        mask = length_mask(frame_lengths, powers[0].shape[2])[:, None]
        estimate, reference = (power.sqrt().masked_fill(~mask, 0) for power in powers)
        count = frame_lengths * powers[0].shape[1]
        # vector_norm, because its gradient is zero, not NaN, if both spectrograms are equal.
        least = self.quietest * count.sqrt()
        convergence = torch.linalg.vector_norm(reference - estimate, dim=(1, 2)) / torch.maximum(
            torch.linalg.vector_norm(reference, dim=(1, 2)), least
        )
        # The logarithm of a magnitude is half the logarithm of its power.
        distance = (powers[1].log() - powers[0].log()).abs().masked_fill(~mask, 0)
        return convergence + 0.5 * distance.sum((1, 2)) / count


def mirrored(waveforms: Tensor, lengths: Tensor, margin: int) -> Tensor:
    """Each utterance extended by ``margin`` mirrored samples at both of its own ends, then zeros.

    An utterance shorter than the margin is mirrored repeatedly.

    Shape: (B, T), (B,) -> (B, T + 2 margin).
    """
    waveforms = masked(waveforms, lengths)
    places = torch.arange(-margin, waveforms.shape[1] + margin, device=waveforms.device)
    last = (lengths - 1).clamp(min=0)[:, None]
    period = (2 * last).clamp(min=1)
    folded = places % period
    source = torch.minimum(folded, period - folded).clamp(max=max(waveforms.shape[1] - 1, 0))
    # An utterance of one sample has no second sample to mirror, so its only sample is repeated.
    source = torch.where(last == 0, torch.zeros_like(source), source)
    return masked(waveforms.gather(1, source), lengths + 2 * margin)


def _powers(waveforms: Tensor, fft_size: int, hop: int, window: Tensor) -> Tensor:
    """Squared magnitudes. Shape: (B, T) -> (B, K, F) float32, at least 1e-8."""
    with torch.autocast(waveforms.device.type, enabled=False):
        wide = waveforms if waveforms.dtype == torch.float64 else waveforms.float()
        settings = {"hop_length": hop, "win_length": len(window), "center": False, "return_complex": True}
        spectrum = torch.stft(wide, fft_size, window=window.to(wide), **settings)
        real, imaginary = torch.view_as_real(spectrum).unbind(-1)
        return (real * real + imaginary * imaginary).clamp(min=_POWER_FLOOR)


def ctc_frames_needed(targets: TokenTargets) -> Tensor:
    """The smallest number of frames for each target: one for each token, and one more between two equal tokens.

    Shape: tokens (B, U) -> (B,).
    """
    tokens, token_lengths = targets.tokens, targets.token_lengths
    positions = torch.arange(1, max(tokens.shape[1], 1), device=tokens.device)
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (positions < token_lengths[:, None])
    return token_lengths + repeats.sum(1)


def ctc_loss(log_probs: Tensor, frame_lengths: Tensor, targets: TokenTargets, *, blank: int = 0) -> Tensor:
    """CTC loss of each utterance; infinite, with zero gradient, if there are too few frames for the target.

    Shape: log_probs (B, F, V), frame_lengths (B,) -> (B,) nats.
    """
    # torch reads the lengths on the host, so those of the targets stay where they are.
    tokens = targets.tokens.to(log_probs.device, non_blocking=True)
    losses = functional.ctc_loss(
        log_probs.transpose(0, 1),
        tokens,
        frame_lengths,
        targets.token_lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    # zero_infinity keeps the gradient finite but gives a loss of 0, which would look like a perfect score.
    infeasible = ctc_frames_needed(targets).to(frame_lengths.device, non_blocking=True) > frame_lengths
    return losses.masked_fill(infeasible, torch.inf)

"""Masking thresholds, below which an utterance makes other sounds inaudible, and how far a perturbation exceeds them.

This is the model of MPEG-1 (Lin and Abdulla 2015) as used by Qin et al. 2019, appendix A. An utterance's loudest bin counts as
96 dB of sound pressure, so scaling audio and perturbation together changes no result.

Legend: B utterances, T samples, F frames, K frequency bins; N frames of all utterances, J maskers of a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.masking import length_mask, masked

WINDOW = 2048
HOP = 512
# A Hann window removes energy from a spectrum; powers are multiplied by this factor and amplitudes by its square root.
HANN_GAIN = 8 / 3
_LOUDEST = 10**9.6
_FLOOR = 1e-20
_DECIBEL = math.log2(10) / 10
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True)
class MaskingThresholds:
    """The masking thresholds of B utterances.

    Shape: power (B, F, K), 10^(threshold in dB / 10), zero past an utterance's frames; loudest and num_frames (B,).

    Attributes:
        loudest: the largest |sqrt(8/3) STFT / window|^2 of each utterance; this power counts as 96 dB.
    """

    power: Tensor
    loudest: Tensor
    num_frames: Tensor

    def select(self, rows: Tensor) -> MaskingThresholds:
        """The thresholds of the utterances at ``rows`` (num,)."""
        num_frames = self.num_frames[rows]
        longest = int(num_frames.max()) if len(num_frames) else 0
        return MaskingThresholds(self.power[rows, :longest], self.loudest[rows], num_frames)


def masking_thresholds(waveforms: Tensor, lengths: Tensor, *, sample_rate: int = 16_000) -> MaskingThresholds:
    """The global masking threshold of every frame that lies within its utterance (Qin et al. 2019, eq. 10-15).

    An utterance shorter than one window is one frame, padded with zeros. Silence masks nothing, so its thresholds are the
    thresholds of hearing in quiet.

    Shape: waveforms (B, T), lengths (B,).
    """
    num_frames = ((lengths - WINDOW).clamp(min=0) // HOP) + 1
    within = length_mask(num_frames, int(num_frames.max()))
    # The spectra are float64: in bins far below the loudest, float32 rounding would move the local maxima.
    frames = _filled(masked(waveforms, lengths)).unfold(1, WINDOW, HOP)[:, : within.shape[1]][within].double()
    spectra, owners = HANN_GAIN * power_spectra(frames)[:, 0], within.nonzero()[:, 0]
    loudest = spectra.new_zeros(len(lengths)).scatter_reduce_(0, owners, spectra.amax(1), "amax").clamp_(min=_FLOOR)
    levels = spectra.clamp_(min=_FLOOR).mul_((_LOUDEST / loudest)[owners, None])
    power = torch.zeros(*within.shape, levels.shape[1], device=levels.device)
    power[within] = _frame_thresholds(levels, sample_rate)
    return MaskingThresholds(power, loudest.float(), num_frames)


def masking_excess(delta: Tensor, thresholds: MaskingThresholds, *, qin_gain_bug: bool = False) -> Tensor:
    """l_theta: how far the power of a perturbation exceeds the thresholds, averaged over frames and bins (eq. 17).

    The excess is a power, not a level in decibels, and is zero if and only if no bin of any frame exceeds its threshold. The
    rest of the utterance after its last whole frame, fewer than 512 samples, is ignored.

    ``qin_gain_bug`` multiplies the perturbation's amplitude by 8/3 as the authors' code does, although the utterance is
    multiplied by sqrt(8/3): the perturbation then counts as 4.26 dB louder than it is.

    Shape: delta (B, T), zero in the padding -> (B,).
    """
    gain = HANN_GAIN**2 if qin_gain_bug else HANN_GAIN
    spectra = power_spectra(delta)[:, : thresholds.power.shape[1]]
    # The two large numbers are divided first: at any audio level their ratio is about as large as the thresholds.
    levels = spectra * (_LOUDEST * gain / thresholds.loudest)[:, None, None]
    excess = masked(functional.relu(levels - thresholds.power), thresholds.num_frames)
    return excess.sum((1, 2)) / (thresholds.num_frames * excess.shape[2])


def power_spectra(waveforms: Tensor) -> Tensor:
    """|STFT / window|^2 of whole frames, Hann window; differentiable also where it is zero. Shape: (B, T) -> (B, F, K)."""
    window = torch.hann_window(WINDOW, dtype=waveforms.dtype, device=waveforms.device)
    spectra = torch.stft(_filled(waveforms), WINDOW, HOP, window=window / WINDOW, center=False, return_complex=True)
    return (spectra.real.square() + spectra.imag.square()).transpose(1, 2)


def _filled(waveforms: Tensor) -> Tensor:
    """Waveforms padded with zeros to at least one window. Shape: (B, T) -> (B, T')."""
    return functional.pad(waveforms, (0, max(WINDOW - waveforms.shape[1], 0)))


def bark(frequencies: Tensor) -> Tensor:
    """Critical-band rate. Units: hertz to bark."""
    return 13 * torch.atan(0.00076 * frequencies) + 3.5 * torch.atan((frequencies / 7500) ** 2)


def threshold_in_quiet(frequencies: Tensor) -> Tensor:
    """The level above which a tone is heard in silence; minus infinity up to 1 bark. Units: hertz to dB."""
    kilohertz = frequencies / 1000
    hearing = 3.64 * kilohertz**-0.8 - 6.5 * torch.exp(-0.6 * (kilohertz - 3.3) ** 2) + 0.001 * kilohertz**4 - 12
    return hearing.masked_fill(bark(frequencies) <= 1, -torch.inf)


def _frame_thresholds(levels: Tensor, sample_rate: int) -> Tensor:
    """10^(threshold / 10) of each frame. Shape: levels (N, K) float64, as powers -> (N, K) float32."""
    frequencies = torch.arange(levels.shape[1], dtype=levels.dtype, device=levels.device) * (sample_rate / WINDOW)
    barks, quiet = bark(frequencies), (threshold_in_quiet(frequencies) * _DECIBEL).exp2()
    bins, powers = _maskers(levels, barks, quiet)
    positions, decibels = barks[bins], powers.log2() / _DECIBEL
    heights = decibels - 6.025 - 0.275 * positions
    slopes = -27 + 0.37 * (decibels - 40).clamp(min=0)
    columns = [table.float().split(_FRAMES_AT_ONCE) for table in (positions, heights * _DECIBEL, slopes * _DECIBEL)]
    spread = [_spread(*part, barks.float()) for part in zip(*columns, strict=True)]
    return torch.cat(spread) + quiet.float()


def _maskers(levels: Tensor, barks: Tensor, quiet: Tensor) -> tuple[Tensor, Tensor]:
    """The maskers of each frame: local maxima above the threshold in quiet, thinned out. All values are powers.

    Shape: levels (N, K) -> bins (N, J) and their powers, which are 0 where a frame has fewer than J maskers.
    """
    lower, middle, upper = levels[:, :-2], levels[:, 1:-1], levels[:, 2:]
    sums = functional.pad(lower + middle + upper, (1, 1))
    heard = functional.pad((middle > lower) & (middle > upper), (1, 1)) & (sums >= quiet)
    bins = _thinned(_left_aligned(heard), sums, barks)
    return bins, sums.gather(1, bins)


def _thinned(candidates: Tensor, sums: Tensor, barks: Tensor) -> Tensor:
    """Thin out maskers: going up in frequency, the louder of two that are less than half a bark apart stays.

    Shape: candidates (M, N), powers sums (N, K), barks (K,) -> bins (N, J), padded with 0.
    """
    position, power = torch.full_like(sums[:, 0], -torch.inf), torch.zeros_like(sums[:, 0])
    # The last masker that stayed, and the number of maskers so far. Row 0 of ``kept`` collects the writes of frames without any.
    winner, count = torch.zeros((2, len(sums)), dtype=torch.long, device=sums.device)
    kept = candidates.new_zeros(len(candidates) + 1, len(sums))
    for bins, its_position, its_power in zip(candidates, barks[candidates], sums.T.gather(0, candidates), strict=True):
        apart = (bins > 0) & (its_position - position >= 0.5)
        takes = apart | (its_power > power)
        position, power = torch.where(takes, its_position, position), torch.where(takes, its_power, power)
        winner, count = torch.where(takes, bins, winner), count + apart
        kept.scatter_(0, count[None], winner[None])
    return kept[1 : int(count.max()) + 1].T


def _left_aligned(marks: Tensor) -> Tensor:
    """The column numbers at which each row is True, listed from the top of a column, padded with 0. Shape: (N, K) -> (M, N)."""
    ranks = marks.cumsum(1)
    rows, places = marks.nonzero(as_tuple=True)
    aligned = places.new_zeros(int(ranks[:, -1].max()), len(marks))
    aligned[ranks[rows, places] - 1, rows] = places
    return aligned


def _spread(positions: Tensor, heights: Tensor, slopes: Tensor, barks: Tensor) -> Tensor:
    """The sum of the maskers' individual thresholds, as powers. Shape: (N, J) each, barks (K,) -> (N, K).

    Units: heights in octaves of power, slopes in octaves of power per bark. (exp2 takes a third of the time of exp here.)
    """
    total = positions.new_zeros(len(positions), len(barks))
    for position, height, slope in zip(positions.T[..., None], heights.T[..., None], slopes.T[..., None], strict=True):
        distance = barks - position
        # ``slope`` is never positive and 27 is positive, so on each side of the masker the valid line is the lower one.
        above, below = torch.addcmul(height, slope, distance), torch.add(height, distance, alpha=27 * _DECIBEL)
        # A term of -340 dB adds nothing; lower terms would become denormal numbers, which are ten to forty times as slow.
        total += torch.minimum(above, below, out=above).clamp_(min=-113).exp2_()
    return total

"""SpecAugment: random masks over frequency and time during training (Park et al. 2019, without time warping)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_asr.masking import length_mask


class SpecAugment(nn.Module):
    """Set random bands of bins and spans of frames to zero, the mean of normalised features.

    The width of a mask is uniform between 0 and ``freq_width`` of the bins, or ``time_width`` of the utterance's own frames, so
    short and long utterances lose the same share. In evaluation mode the features stay unchanged. Random numbers come from the
    global generator of the features' device.

    Units: freq_width and time_width in fractions of the whole, in [0, 1].
    Shape: features (B, F, M), frame_lengths (B,) -> (B, F, M).
    """

    def __init__(
        self,
        *,
        num_freq_masks: int = 2,
        freq_width: float = 0.25,
        num_time_masks: int = 2,
        time_width: float = 0.1,
    ) -> None:
        super().__init__()
        if num_freq_masks < 0 or num_time_masks < 0 or not (0 <= freq_width <= 1 and 0 <= time_width <= 1):
            raise ValueError(
                "SpecAugment needs numbers of masks >= 0 and widths in [0, 1], got "
                f"num_freq_masks={num_freq_masks}, freq_width={freq_width}, "
                f"num_time_masks={num_time_masks}, time_width={time_width}"
            )
        self.num_freq_masks = num_freq_masks
        self.freq_width = freq_width
        self.num_time_masks = num_time_masks
        self.time_width = time_width

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        if not self.training:
            return features
        _, num_frames, num_bins = features.shape
        bins = torch.full_like(frame_lengths, num_bins)
        hidden_bins = _spans(bins, num_bins, num_masks=self.num_freq_masks, width=self.freq_width)
        hidden_frames = _spans(frame_lengths, num_frames, num_masks=self.num_time_masks, width=self.time_width)
        return features.masked_fill(hidden_frames[:, :, None] | hidden_bins[:, None, :], 0)


def _spans(lengths: Tensor, size: int, *, num_masks: int, width: float) -> Tensor:
    """Union of random spans within the first ``lengths`` positions. Shape: (B,) -> (B, size) bool."""
    draws = torch.rand(2, len(lengths), num_masks, device=lengths.device)
    widths = (draws[0] * (width * lengths[:, None] + 1)).floor().clamp(max=size)
    starts = (draws[1] * (lengths[:, None] - widths + 1)).floor()
    positions = torch.arange(size, device=lengths.device)[None, :, None]
    inside = (positions >= starts[:, None]) & (positions < (starts + widths)[:, None])
    return inside.any(2) & length_mask(lengths, size)

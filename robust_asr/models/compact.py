"""CompactCTC: a recogniser with half a million parameters, small enough for laptops.

Legend: B utterances, T samples, F frames of 10 ms, M mel bins, S steps of 40 ms, C channels, D hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import length_mask, masked
from robust_asr.models.base import CTCRecognizer
from robust_asr.models.features import LogMel, normalize_utterance
from robust_asr.models.masked_norm import MaskedBatchNorm
from robust_asr.models.spec_augment import SpecAugment
from robust_asr.ranges import require_odd, require_shares, require_sizes
from robust_asr.text import Tokenizer


class CompactCTC(CTCRecognizer):
    """Log-mel, two convolutions over time and frequency, separable convolutions over time, a bidirectional GRU, CTC.

    The stem turns frames of 10 ms into steps of 40 ms, and all costly layers run on these steps. At the end each step is
    split into two frames of 20 ms, because 25 frames per second would be too few for the characters of spoken numbers.

    Units: dropout in [0, 1); freq_mask_width and time_mask_width as fractions of the bins and of the utterance, see
    ``SpecAugment``, which is active in training mode only; energy_floor as in ``LogMel``.
    """

    stochastic = False

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        *,
        num_mels: int = 80,
        stem_channels: int = 32,
        width: int = 176,
        num_blocks: int = 5,
        kernel_size: int = 7,
        gru_width: int = 112,
        dropout: float = 0.1,
        num_freq_masks: int = 2,
        freq_mask_width: float = 0.25,
        num_time_masks: int = 2,
        time_mask_width: float = 0.1,
        energy_floor: float = 1e-6,
    ) -> None:
        super().__init__(tokenizer)
        self.num_mels = num_mels
        self.stem_channels = stem_channels
        self.width = width
        self.num_blocks = num_blocks
        self.kernel_size = kernel_size
        self.gru_width = gru_width
        self.dropout = dropout
        self.num_freq_masks = num_freq_masks
        self.freq_mask_width = freq_mask_width
        self.num_time_masks = num_time_masks
        self.time_mask_width = time_mask_width
        self.energy_floor = energy_floor
        self._check()

        self.front_end = LogMel(sample_rate=self.sample_rate, num_mels=num_mels, energy_floor=energy_floor)
        self.frame_shift = 2 * self.front_end.hop
        self.spec_augment = SpecAugment(
            num_freq_masks=num_freq_masks,
            freq_width=freq_mask_width,
            num_time_masks=num_time_masks,
            time_width=time_mask_width,
        )
        self.stem = Stem(num_mels, channels=stem_channels, width=width)
        self.blocks = nn.ModuleList(
            SeparableBlock(width, kernel_size=kernel_size, dropout=dropout) for _ in range(num_blocks)
        )
        self.gru = BidirectionalGRU(width, gru_width)
        self.output_dropout = nn.Dropout(dropout)
        self.unfold = nn.Linear(2 * gru_width, 2 * gru_width)
        self.head = nn.Linear(gru_width, self.tokenizer.size)

    def num_frames(self, lengths: Tensor) -> Tensor:
        return _halved(self.front_end.num_frames(lengths))

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features, feature_lengths = self.front_end(waveforms, lengths)
        features = normalize_utterance(features, feature_lengths)
        values, mask = self.stem(self.spec_augment(features, feature_lengths), feature_lengths)
        for block in self.blocks:
            values = block(values, mask)
        frame_lengths = self.num_frames(lengths)
        steps = self.output_dropout(self.gru(values.transpose(1, 2), _halved(frame_lengths)))
        hidden = functional.silu(self.unfold(steps)).reshape(len(steps), -1, self.gru_width)
        return masked(hidden[:, : _halved(features.shape[1])], frame_lengths), frame_lengths

    def _check(self) -> None:
        sizes = {"stem_channels": self.stem_channels, "width": self.width, "gru_width": self.gru_width}
        require_sizes("CompactCTC", least=2, **sizes)
        require_sizes("CompactCTC", least=0, num_blocks=self.num_blocks)
        require_odd("CompactCTC", kernel_size=self.kernel_size)
        require_shares("CompactCTC", dropout=self.dropout)


class Stem(nn.Module):
    """Two convolutions over time and frequency, each of stride 2, then a projection to channels over time.

    Shape: features (B, F, M), feature_lengths (B,) -> (B, C, S), mask (B, 1, S), with S = ceil(F / 4).
    """

    def __init__(self, num_mels: int, *, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels // 2, 3, stride=2, padding=1, bias=False)
        self.first_norm = MaskedBatchNorm(channels // 2)
        self.second = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
        self.second_norm = MaskedBatchNorm(channels)
        self.project = nn.Conv1d(channels * _halved(_halved(num_mels)), width, 1, bias=False)
        self.norm = MaskedBatchNorm(width)

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = self.first(features[:, None])
        mask = length_mask(_halved(feature_lengths), values.shape[2])[:, None].to(features.dtype)
        values = functional.silu(self.first_norm(values, mask[..., None]))
        values, mask = self.second(values), mask[:, :, ::2]
        values = functional.silu(self.second_norm(values, mask[..., None]))
        values = self.project(values.transpose(2, 3).flatten(1, 2))
        return functional.silu(self.norm(values, mask)), mask


class SeparableBlock(nn.Module):
    """Depthwise then pointwise convolution over time, with a residual connection.

    Shape: values (B, C, S), zero where mask (B, 1, S) is zero -> the same.
    """

    def __init__(self, width: int, *, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False)
        self.pointwise = nn.Conv1d(width, width, 1, bias=False)
        self.norm = MaskedBatchNorm(width)
        # Dropout1d draws once for each channel and utterance; drawing for each element costs as much as the convolutions on a CPU.
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        mixed = self.norm(self.pointwise(self.depthwise(values)), mask)
        return values + self.dropout(functional.silu(mixed))


class BidirectionalGRU(nn.Module):
    """One GRU forwards, and one backwards that starts at the end of each utterance: a third cheaper than a packed sequence.

    Shape: values (B, S, C), step_lengths (B,) -> (B, S, 2 D); the values past an utterance's end are undefined.
    """

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(width, hidden_width, batch_first=True)
        self.backwards = nn.GRU(width, hidden_width, batch_first=True)

    def forward(self, values: Tensor, step_lengths: Tensor) -> Tensor:
        steps = torch.arange(values.shape[1], device=values.device)
        mirrored = torch.where(steps < step_lengths[:, None], step_lengths[:, None] - 1 - steps, steps)[:, :, None]
        before = self.forwards(values)[0]
        after = self.backwards(_reordered(values, mirrored))[0]
        return torch.cat([before, _reordered(after, mirrored)], -1)


def _reordered(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(1, order.expand(-1, -1, values.shape[2]))


def _halved(sizes):
    """The length after a convolution of stride 2; takes an int or a Tensor."""
    return (sizes + 1) // 2

"""Conformer (Gulati et al. 2020): the encoder that Joshi et al. 2022 and Yang et al. 2022 attacked, and its CTC recogniser.

Legend: B utterances, T samples, F frames of 10 ms, M mel bins, S steps of 40 ms, D hidden units, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from robust_asr.masking import length_mask, masked
from robust_asr.models.base import CTCRecognizer
from robust_asr.models.convolution_module import ConvolutionModule
from robust_asr.models.kaldi_fbank import HOP, KaldiFbank
from robust_asr.models.normalization import MaskedBatchNorm
from robust_asr.models.normed_features import NormedFeatures
from robust_asr.models.relative_attention import RelativeSelfAttention, relative_positions
from robust_asr.models.spec_augment import SpecAugment
from robust_asr.models.subsampling import StridedSubsampling, VggSubsampling
from robust_asr.ranges import require_heads, require_odd, require_shares, require_sizes
from robust_asr.text import Tokenizer

Subsampling = Literal["vgg", "strided"]


class ConformerEncoder(NormedFeatures):
    """Log-mel, BatchNorm of each bin, subsampling to 40 ms, Conformer blocks. The padding has no effect on any utterance.

    The defaults are the size of Joshi et al. 2022: 12 blocks of width 256 with feed-forward layers of 2,048.

    Args:
        subsampling: ``vgg``, four convolutions and two maxima (Joshi et al.), or ``strided``, two convolutions of
            stride 2 (Gulati et al.), a tenth of the cost.
        spec_augment: masks the normalised features in training; no masks by default.

    Units: dropout in [0, 1).
    Shape: waveforms (B, T), lengths (B,) -> hidden (B, S, D), zero in the padding, step_lengths (B,).
    """

    sample_rate = 16_000

    def __init__(
        self,
        *,
        num_mels: int = 80,
        subsampling: Subsampling = "vgg",
        subsampling_channels: int = 64,
        width: int = 256,
        num_layers: int = 12,
        num_heads: int = 4,
        feed_forward_width: int = 2048,
        kernel_size: int = 31,
        dropout: float = 0.1,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        self.num_mels = num_mels
        self.subsampling: Subsampling = subsampling
        self.subsampling_channels = subsampling_channels
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.feed_forward_width = feed_forward_width
        self.kernel_size = kernel_size
        self.dropout = dropout
        self._check()

        self.front_end = KaldiFbank(num_mels=num_mels)
        self.frame_shift = 4 * HOP / self.sample_rate
        self.feature_norm = MaskedBatchNorm(num_mels)
        self.spec_augment = spec_augment
        kind = VggSubsampling if subsampling == "vgg" else StridedSubsampling
        self.subsample = kind(num_mels, channels=subsampling_channels, width=width)
        self.input_dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            ConformerBlock(
                width,
                num_heads=num_heads,
                feed_forward_width=feed_forward_width,
                kernel_size=kernel_size,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Steps of the result. Shape: (B,) samples -> (B,) steps."""
        return self.subsample.num_steps(self.front_end.num_frames(lengths))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features, feature_lengths = self.features(waveforms, lengths)
        values, step_lengths = self.subsample(features, feature_lengths)
        values = self.input_dropout(values)
        distances = self.input_dropout(relative_positions(values.shape[1], self.width, like=values))
        mask = length_mask(step_lengths, values.shape[1])
        for block in self.blocks:
            values = block(values, distances, step_lengths, mask)
        return masked(values, step_lengths), step_lengths

    def _check(self) -> None:
        if self.subsampling not in get_args(Subsampling):
            accepted = " or ".join(get_args(Subsampling))
            raise ValueError(f"Conformer: subsampling is {self.subsampling!r}, accepted is {accepted}")
        sizes = {name: getattr(self, name) for name in ("num_mels", "width", "num_heads", "feed_forward_width")}
        require_sizes("Conformer", **sizes)
        require_sizes("Conformer", least=2, subsampling_channels=self.subsampling_channels)
        require_sizes("Conformer", least=0, num_layers=self.num_layers)
        require_heads("Conformer", self.width, num_heads=self.num_heads)
        require_odd("Conformer", kernel_size=self.kernel_size)
        require_shares("Conformer", dropout=self.dropout)


class ConformerBlock(nn.Module):
    """Feed-forward layer with weight 1/2, self-attention, convolution, feed-forward layer with weight 1/2.

    Each of the four parts normalises its input first, and its output is added to its input.

    Shape: values (B, S, D), distances (2 S - 1, D), step_lengths (B,), mask (B, S) True at valid steps -> (B, S, D).
        The values in the padding are unspecified.
    """

    def __init__(
        self, width: int, *, num_heads: int, feed_forward_width: int, kernel_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.before = _feed_forward(width, feed_forward_width, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = RelativeSelfAttention(width, num_heads=num_heads, dropout=dropout)
        self.convolution_norm = nn.LayerNorm(width)
        self.convolution = ConvolutionModule(width, kernel_size=kernel_size)
        self.dropout = nn.Dropout(dropout)
        self.after = _feed_forward(width, feed_forward_width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, values: Tensor, distances: Tensor, step_lengths: Tensor, mask: Tensor) -> Tensor:
        values = values + 0.5 * self.before(values)
        values = values + self.dropout(self.attention(self.attention_norm(values), distances, mask))
        values = values + self.dropout(self.convolution(self.convolution_norm(values), step_lengths))
        values = values + 0.5 * self.after(values)
        return self.norm(values)


def _feed_forward(width: int, hidden_width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, hidden_width),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_width, width),
        nn.Dropout(dropout),
    )


class ConformerCTC(CTCRecognizer):
    """Conformer, linear head, and CTC over characters or over the word pieces of ``robust_asr.text.bpe.BpeTokenizer``."""

    stochastic = False

    def __init__(self, encoder: ConformerEncoder, *, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(tokenizer)
        self.encoder = encoder
        self.frame_shift = encoder.frame_shift
        self.head = nn.Linear(encoder.width, self.tokenizer.size)

    def num_frames(self, lengths: Tensor) -> Tensor:
        return self.encoder.num_frames(lengths)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder(waveforms, lengths)

"""From frames of 10 ms to steps of 40 ms.

Legend: B utterances, F frames, M mel bins, S steps, C channels, D hidden units.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import length_mask
from robust_asr.models.masked_norm import MaskedBatchNorm


class _Subsampling(nn.Module):
    """Convolutions that reduce frames and bins to a quarter, then a projection.

    Shape: features (B, F, M), zero in the padding, frame_lengths (B,) -> (B, S, D), step_lengths (B,), S = ceil(ceil(F / 2) / 2).
        The values in the padding are unspecified.
    """

    project: nn.Linear

    @staticmethod
    def num_steps(frame_lengths: Tensor) -> Tensor:
        """The number of steps of each utterance. Shape: (B,) frames -> (B,) steps."""
        return halved(halved(frame_lengths))

    def _flattened(self, values: Tensor, step_lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.project(values.transpose(1, 2).flatten(2)), step_lengths


class VggSubsampling(_Subsampling):
    """Two stages of two convolutions with ReLU and a maximum over 2 by 2 (the front end of Joshi et al. 2022).

    The first stage has half of ``channels``, the second stage ``channels``.
    """

    def __init__(self, num_mels: int, *, channels: int, width: int) -> None:
        super().__init__()
        sizes = [1, channels // 2, channels // 2, channels, channels]
        self.convs = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(sizes))
        self.project = nn.Linear(channels * halved(halved(num_mels)), width)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = features[:, None]
        for index, conv in enumerate(self.convs):
            values = _masked(functional.relu(conv(values)), frame_lengths)
            if index % 2:
                values = functional.max_pool2d(values, 2, ceil_mode=True)
                frame_lengths = halved(frame_lengths)
        return self._flattened(values, frame_lengths)


class StridedSubsampling(_Subsampling):
    """Two convolutions of stride 2, each with a ReLU (Gulati et al. 2020)."""

    def __init__(self, num_mels: int, *, channels: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(num_in, channels, 3, stride=2, padding=1) for num_in in (1, channels))
        self.project = nn.Linear(channels * halved(halved(num_mels)), width)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = features[:, None]
        for conv in self.convs:
            frame_lengths = halved(frame_lengths)
            values = _masked(functional.relu(conv(values)), frame_lengths)
        return self._flattened(values, frame_lengths)


class NormedSubsampling(_Subsampling):
    """Four convolutions of strides 1, 2, 1 and 2, each with BatchNorm and ReLU (the front end of Wang et al. 2019, Espresso).

    The first two have half of ``channels``, the others ``channels``.
    """

    def __init__(self, num_mels: int, *, channels: int, width: int) -> None:
        super().__init__()
        sizes = [1, channels // 2, channels // 2, channels, channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(*pair, 3, stride=stride, padding=1, bias=False)
            for pair, stride in zip(pairwise(sizes), (1, 2, 1, 2), strict=True)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(size) for size in sizes[1:])
        self.project = nn.Linear(channels * halved(halved(num_mels)), width)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = features[:, None]
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            values = conv(values)
            frame_lengths = halved(frame_lengths) if index % 2 else frame_lengths
            mask = length_mask(frame_lengths, values.shape[2])[:, None, :, None].to(features.dtype)
            values = functional.relu(norm(values, mask))
        return self._flattened(values, frame_lengths)


def halved(sizes):
    """The length after a stride of 2; takes an int or a Tensor."""
    return (sizes + 1) // 2


def _masked(values: Tensor, frame_lengths: Tensor) -> Tensor:
    """Shape: values (B, C, F, M) -> the same, zero in the padding."""
    return values.masked_fill(~length_mask(frame_lengths, values.shape[2])[:, None, :, None], 0)

"""The convolution of a Conformer block (Gulati et al. 2020, section 2.2), not influenced by the padding.

Legend: B utterances, F frames, D hidden units.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import masked
from robust_asr.models.normalization import MaskedBatchNorm


class ConvolutionModule(nn.Module):
    """Pointwise convolution with a gate, depthwise convolution over time, masked BatchNorm, SiLU, pointwise convolution.

    Shape: values (B, F, D), frame_lengths (B,) -> (B, F, D). The values in the padding are unspecified.
    """

    def __init__(self, width: int, *, kernel_size: int) -> None:
        super().__init__()
        self.gated = nn.Linear(width, 2 * width)
        # No bias, because the normalisation that follows would remove it.
        self.depthwise = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False)
        self.norm = MaskedBatchNorm(width)
        self.output = nn.Linear(width, width)

    def forward(self, values: Tensor, frame_lengths: Tensor) -> Tensor:
        values = masked(functional.glu(self.gated(values)), frame_lengths).transpose(1, 2)
        values = functional.silu(self.norm(self.depthwise(values), frame_lengths))
        return self.output(values.transpose(1, 2))

"""Conv-TasNet for one source (Luo and Mesgarani 2019), as the denoiser of JO22: a mask on learnt filters of the waveform.

Legend: B utterances, T samples, F frames, N filters, C channels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.gradients import Checkpointed
from robust_asr.masking import length_mask, masked
from robust_asr.models.global_layer_norm import GlobalLayerNorm
from robust_asr.models.prelu import PReLU
from robust_asr.ranges import require_odd, require_sizes

Activation = Literal["relu", "sigmoid"]


class ConvTasNet(Checkpointed):
    """Maps a waveform to a waveform of the same length; the result of an utterance does not depend on its batch.

    For one utterance the model equals ``torchaudio.models.ConvTasNet`` with one source, parameter for parameter. In a batch the
    global layer normalisation of torchaudio's model includes the padding, which changes its output by 9 %; ours excludes it.

    The defaults are two stacks of 8 layers, which hear 0.26 s on either side. JO22 says one stack of 16 (``num_layers=16,
    num_stacks=1``, as many parameters): the outer taps of its last layers reach up to 16.4 s, so they never get a gradient from
    shorter audio, and act with the random weights that they began with on longer audio (``reach``).

    Args:
        num_filters, filter_size: number and length of the analysis and synthesis filters, the encoder and decoder of the paper;
            neighbouring frames overlap by half.
        num_feats, num_hidden: channels between and inside blocks.
        kernel_size: the kernel size of the dilated convolutions.
        num_layers: blocks in a stack, with dilations 1, 2, 4, ...
        mask: the function that bounds the mask; with ``relu`` the mask may amplify.
    """

    def __init__(
        self,
        *,
        num_filters: int = 128,
        filter_size: int = 16,
        num_feats: int = 128,
        num_hidden: int = 512,
        kernel_size: int = 3,
        num_layers: int = 8,
        num_stacks: int = 2,
        mask: Activation = "relu",
    ) -> None:
        super().__init__()
        self.num_filters, self.filter_size = num_filters, filter_size
        self.num_feats, self.num_hidden, self.kernel_size = num_feats, num_hidden, kernel_size
        self.num_layers, self.num_stacks, self.mask = num_layers, num_stacks, mask
        self._check()
        stride = filter_size // 2
        self.analysis = nn.Conv1d(1, num_filters, filter_size, stride=stride, padding=stride, bias=False)
        self.input_norm = GlobalLayerNorm(num_filters)
        self.input_conv = nn.Conv1d(num_filters, num_feats, 1)
        self.blocks = nn.ModuleList(
            Block(num_feats, num_hidden, kernel_size=kernel_size, dilation=2**layer)
            for _ in range(num_stacks)
            for layer in range(num_layers)
        )
        # The last block contributes to the mask only, as no block follows it.
        self.blocks[-1].residual = None
        self.output_prelu = PReLU()
        self.output_conv = nn.Conv1d(num_feats, num_filters, 1)
        self.synthesis = nn.ConvTranspose1d(num_filters, 1, filter_size, stride=stride, padding=stride, bias=False)

    @property
    def reach(self) -> int:
        """How far the outermost tap of a single layer lies from its frame, in samples: only longer audio gives it a gradient."""
        return max(block.depthwise.padding[0] for block in self.blocks) * (self.filter_size // 2)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Shape: (B, T), (B,) -> (B, T), zero in the padding."""
        stride = self.filter_size // 2
        aligned = functional.pad(masked(waveforms, lengths), (0, -waveforms.shape[1] % stride))
        filtered = self._analysed(aligned)
        valid = length_mask(-(-lengths // stride) + 1, filtered.shape[2])[:, None].to(filtered.dtype)
        features = self.input_conv(self.input_norm(filtered, valid))
        total: Tensor | float = 0.0
        for block in self.blocks:
            residual, skip = self.run_block(block, features, valid)
            features = features if residual is None else features + residual
            total = total + skip
        scores = self.output_conv(self.output_prelu(total))
        mask = scores.relu() if self.mask == "relu" else scores.sigmoid()
        decoded = self._synthesised(filtered * mask * valid)[:, : waveforms.shape[1]]
        return masked(decoded.to(waveforms.dtype), lengths)

    # Frames overlap by half, so the convolution is the sum of two matrix products and its transpose needs one matrix product.
    # Matrix products are used because torch's convolutions with one channel are slow on a CPU.

    def _analysed(self, waveforms: Tensor) -> Tensor:
        """``self.analysis``. Shape: (B, T) of whole strides -> (B, N, F)."""
        stride = self.filter_size // 2
        pieces = functional.pad(waveforms, (stride, stride)).unflatten(1, (-1, stride)).transpose(1, 2)
        early, late = self.analysis.weight[:, 0].split(stride, 1)
        return early @ pieces[:, :, :-1] + late @ pieces[:, :, 1:]

    def _synthesised(self, filtered: Tensor) -> Tensor:
        """``self.synthesis``. Shape: (B, N, F) -> (B, T)."""
        early, late = (self.synthesis.weight[:, 0].T @ filtered).split(self.filter_size // 2, 1)
        # The first half of each frame is added to the second half of the frame before.
        return (early[:, :, 1:] + late[:, :, :-1]).transpose(1, 2).flatten(1)

    def _check(self) -> None:
        counts = ("num_filters", "num_feats", "num_hidden", "num_layers", "num_stacks")
        require_sizes("ConvTasNet", **{name: getattr(self, name) for name in counts})
        if self.num_layers > 30:
            raise ValueError(f"ConvTasNet: num_layers is {self.num_layers}, accepted is up to 30: the dilation doubles")
        if self.filter_size < 2 or self.filter_size % 2:
            raise ValueError(f"ConvTasNet: filter_size is {self.filter_size}, accepted is an even number")
        require_odd("ConvTasNet", kernel_size=self.kernel_size)
        if self.mask not in get_args(Activation):
            raise ValueError(f"ConvTasNet: mask is {self.mask!r}, accepted is {' or '.join(get_args(Activation))}")


class Block(nn.Module):
    """Expansion, dilated depthwise convolution, and two contributions: to the next block and to the mask.

    Shape: features (B, C, F), valid (B, 1, F) of zeros and ones -> residual and skip (B, C, F); their padding is undefined.
    """

    def __init__(self, num_feats: int, num_hidden: int, *, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.expand = nn.Conv1d(num_feats, num_hidden, 1)
        self.first_prelu = PReLU()
        self.first_norm = GlobalLayerNorm(num_hidden)
        padding = dilation * (kernel_size // 2)
        self.depthwise = nn.Conv1d(
            num_hidden, num_hidden, kernel_size, dilation=dilation, padding=padding, groups=num_hidden
        )
        self.second_prelu = PReLU()
        self.second_norm = GlobalLayerNorm(num_hidden)
        self.residual: nn.Conv1d | None = nn.Conv1d(num_hidden, num_feats, 1)
        self.skip = nn.Conv1d(num_hidden, num_feats, 1)

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor | None, Tensor]:
        hidden = self.first_norm(self.first_prelu(self.expand(features)), valid)
        hidden = self.second_norm(self.second_prelu(self._convolved(hidden)), valid)
        return None if self.residual is None else self.residual(hidden), self.skip(hidden)

    def _convolved(self, hidden: Tensor) -> Tensor:
        convolution = self.depthwise
        if convolution.dilation[0] < hidden.shape[2]:
            return convolution(hidden)
        # The dilation exceeds the length, so the outer taps multiply zeros only and the centre tap is left; in the last block of
        # a stack of 16 a convolution would pad 32768 zeros on each side. (nn.Conv1d with one tap in 512 groups would compute
        # the same but takes sixteen times the memory on a CPU.)
        centre = convolution.weight[:, 0, convolution.kernel_size[0] // 2]
        # Autocast converts the weights of a convolution to the type of its input, but not those of addcmul.
        return torch.addcmul(convolution.bias[:, None].to(hidden.dtype), hidden, centre[:, None].to(hidden.dtype))

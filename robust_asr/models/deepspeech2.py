"""DeepSpeech2 (Amodei et al. 2016) in the variant that Olivier and Raj 2021 and Zelasko et al. 2021 attacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from robust_asr.masking import length_mask, masked
from robust_asr.models.base import CTCRecognizer
from robust_asr.models.normalization import MaskedBatchNorm
from robust_asr.text import Tokenizer

WINDOW = 320
HOP = 160
NUM_BINS = WINDOW // 2 + 1


class LogSpectrogram(nn.Module):
    """log(1 + |STFT|), 20 ms Hamming window every 10 ms, each utterance normalised to mean 0 and deviation 1.

    Mean and deviation are one number for each utterance, over all bins of its own frames. The ends are padded with zeros,
    because with zeros the batch's padding changes nothing. The deviation has a floor, so that silence gives finite values.

    Shape: waveforms (B, T), lengths (B,) samples -> (B, 161, F), frame lengths (B,); zero past the frame lengths.
    """

    min_variance = 1e-10

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hamming_window(WINDOW), persistent=False)

    @staticmethod
    def num_frames(lengths: Tensor) -> Tensor:
        return lengths // HOP + 1

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(waveforms.device.type, enabled=False):
            window = self.window.to(waveforms.dtype)
            spectrum = torch.stft(
                masked(waveforms, lengths), WINDOW, HOP, window=window, pad_mode="constant", return_complex=True
            )
            frame_lengths = self.num_frames(lengths)
            return self._normalize(spectrum.abs().log1p(), frame_lengths), frame_lengths

    def _normalize(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        padding = ~length_mask(frame_lengths, features.shape[-1])[:, None, :]
        cells = (frame_lengths * NUM_BINS)[:, None, None]
        mean = features.masked_fill(padding, 0).sum((1, 2), keepdim=True) / cells
        centered = (features - mean).masked_fill(padding, 0)
        variance = centered.square().sum((1, 2), keepdim=True) / (cells - 1)
        return centered * variance.clamp(min=self.min_variance).rsqrt()


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, Hardtanh(0, 20). The padding has no effect, and the result's padding is zero.

    Shape: (B, C, N, F), frame lengths (B,) -> (B, C', N', F'), frame lengths (B,).
    """

    def __init__(self, num_in: int, num_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_in, num_out, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
        self.norm = MaskedBatchNorm(num_out)

    def num_frames(self, frame_lengths: Tensor) -> Tensor:
        return (frame_lengths - 1) // self.conv.stride[1] + 1

    def forward(self, values: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        frame_lengths = self.num_frames(frame_lengths)
        # Zero is a fixed point of the Hardtanh, so the padding that the normalisation zeroed stays zero.
        return functional.hardtanh(self.norm(self.conv(values), frame_lengths), 0.0, 20.0), frame_lengths


class SummedBiLSTM(nn.Module):
    """Bidirectional LSTM whose directions are added; the backward direction starts at the end of each utterance.

    Shape: values (F, B, D), frame lengths (B,) on the CPU -> (F, B, H); the values in the padding are unspecified.
    """

    def __init__(self, num_in: int, num_hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_in, num_hidden, bidirectional=True)

    def forward(self, values: Tensor, frame_lengths: Tensor) -> Tensor:
        # On a GPU both directions run in one cuDNN call over a packed sequence. The packed kernel of the CPU is 3 to 10
        # times slower than the kernel for equal lengths, and its gradient takes time quadratic in the number of frames.
        both = self._packed(values, frame_lengths) if values.is_cuda else self._turned(values, frame_lengths)
        return both.unflatten(-1, (2, -1)).sum(-2)

    def _packed(self, values: Tensor, frame_lengths: Tensor) -> Tensor:
        # Sorted here, because the sorting of pack_padded_sequence makes the host wait for the device in every layer.
        order = frame_lengths.argsort(descending=True)
        there, back = (rows.to(values.device, non_blocking=True) for rows in (order, order.argsort()))
        packed, _ = self.lstm(pack_padded_sequence(values.index_select(1, there), frame_lengths[order]))
        return pad_packed_sequence(packed, total_length=len(values))[0].index_select(1, back)

    def _turned(self, values: Tensor, frame_lengths: Tensor) -> Tensor:
        order = _turned_order(frame_lengths, len(values)).to(values.device)
        ahead, back = self.lstm.all_weights
        state = values.new_zeros(1, values.shape[1], self.lstm.hidden_size)
        options = (True, 1, 0.0, self.lstm.training, False, False)
        forward = torch.lstm(values, (state, state), ahead, *options)[0]
        backward = torch.lstm(_take(values, order), (state, state), back, *options)[0]
        return torch.cat([forward, _take(backward, order)], -1)


def _turned_order(frame_lengths: Tensor, size: int) -> Tensor:
    """Row numbers that turn each utterance back to front and leave its padding where it is. Shape: (F * B,)."""
    frames = torch.arange(size)[:, None]
    turned = torch.where(frames < frame_lengths, frame_lengths - 1 - frames, frames)
    return (turned * len(frame_lengths) + torch.arange(len(frame_lengths))).flatten()


def _take(values: Tensor, order: Tensor) -> Tensor:
    return values.flatten(0, 1).index_select(0, order).view_as(values)


class DeepSpeech2(CTCRecognizer):
    """Two convolutions over time and frequency, bidirectional LSTMs, CTC over characters.

    The defaults are the full size: 86,618,400 parameters with the 29 outputs of LibriSpeech's characters.

    Shape: 20 ms a frame; ``hidden`` has ``rnn_hidden`` units.
    """

    frame_shift = 2 * HOP / 16_000

    stochastic = False

    def __init__(
        self,
        conv_channels: int = 32,
        rnn_hidden: int = 1024,
        rnn_layers: int = 5,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__(tokenizer)
        for name, value in (("conv_channels", conv_channels), ("rnn_hidden", rnn_hidden), ("rnn_layers", rnn_layers)):
            if value < 1:
                raise ValueError(f"{name} of DeepSpeech2 must be at least 1, got {value}")
        self.conv_channels, self.rnn_hidden, self.rnn_layers = conv_channels, rnn_hidden, rnn_layers
        self.spectrogram = LogSpectrogram()
        self.convs = nn.ModuleList(
            [
                ConvBlock(1, conv_channels, (41, 11), (2, 2)),
                ConvBlock(conv_channels, conv_channels, (21, 11), (2, 1)),
            ]
        )
        sizes = [conv_channels * -(-NUM_BINS // 4)] + [rnn_hidden] * rnn_layers
        self.rnns = nn.ModuleList(SummedBiLSTM(num_in, rnn_hidden) for num_in in sizes[:-1])
        # One normalisation after each LSTM; the input of the first LSTM was normalised by the last convolution block.
        self.norms = nn.ModuleList(MaskedBatchNorm(rnn_hidden) for _ in sizes[1:])
        self.head = nn.Linear(rnn_hidden, self.tokenizer.size, bias=False)

    def num_frames(self, lengths: Tensor) -> Tensor:
        frame_lengths = self.spectrogram.num_frames(lengths)
        for conv in self.convs:
            frame_lengths = conv.num_frames(frame_lengths)
        return frame_lengths

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # The lengths are read before any work is queued, because reading them on a GPU waits until all queued work is finished.
        host_lengths = self.num_frames(lengths.cpu())
        features, frame_lengths = self.spectrogram(waveforms, lengths)
        values = features[:, None]
        for conv in self.convs:
            values, frame_lengths = conv(values, frame_lengths)
        values = values.flatten(1, 2)
        for rnn, norm in zip(self.rnns, self.norms, strict=True):
            values = norm(rnn(values.permute(2, 0, 1), host_lengths).permute(1, 2, 0), frame_lengths)
        return values.transpose(1, 2), frame_lengths

"""DeepSpeech (Hannun et al. 2014) in Mozilla's shape: the recogniser of Jayashankar et al. 2020.

Legend: B utterances, T samples, F frames of 20 ms, N coefficients, C frames on either side, D hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import create_dct

from robust_asr.masking import masked
from robust_asr.models.base import CTCRecognizer
from robust_asr.models.deepspeech2 import SummedBiLSTM
from robust_asr.models.features import LogMel, normalize_utterance
from robust_asr.models.keyed_dropout import KeyedDropout
from robust_asr.randomness import fresh_seeds
from robust_asr.ranges import require_shares
from robust_asr.text import Tokenizer

# The kinds of layers after which dropout may be switched on in evaluation.
Kind = Literal["dense", "recurrent"]

_NUM_MELS = 40
_HIGHEST = 20.0


class ContextualMfcc(nn.Module):
    """Cepstral coefficients of 32 ms every 20 ms, those of the neighbouring frames beside each frame's own.

    Each coefficient has mean 0 and variance 1 in each utterance. Frames before the start and after the end are zeros.

    Shape: waveforms (B, T), lengths (B,) -> (B, F, (2 C + 1) N), frame_lengths (B,); the values in the padding are unspecified.
    """

    def __init__(self, num_coefficients: int, num_context: int) -> None:
        super().__init__()
        self.num_context = num_context
        self.log_mel = LogMel(num_mels=_NUM_MELS, window=0.032, hop=0.020)
        # On the meta device, which checkpoint.load uses, torchaudio's function has no values to work with.
        with torch.device("cpu"):
            transform = create_dct(num_coefficients, _NUM_MELS, norm="ortho")
        self.register_buffer("transform", transform.to(self.log_mel.taper.device), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_energies, frame_lengths = self.log_mel(waveforms, lengths)
        with torch.autocast(waveforms.device.type, enabled=False):
            features = normalize_utterance(log_energies @ self.transform, frame_lengths)
        padded = functional.pad(features, (0, 0, self.num_context, self.num_context))
        return padded.unfold(1, 2 * self.num_context + 1, 1).flatten(2), frame_lengths


class DeepSpeech(CTCRecognizer):
    """Three dense layers over frames with their neighbours, a bidirectional LSTM, a dense layer, CTC over characters.

    Dense layers have a ReLU that ends at 20 and dropout; the LSTM has no dropout, and its directions are added (Hannun et al.
    2014, section 2). The defaults are Mozilla's sizes: 26 coefficients, nine frames on either side, 2,048 units, dropout of
    0.05; 80,803,869 parameters with the 29 outputs of LibriSpeech's characters. Mozilla's weights do not fit: its front end is
    TensorFlow's, without normalisation, and its LSTM is another one in each of its versions.

    With dropout in evaluation the recogniser is ``stochastic``: loss and transcript then depend on ``seeds``, for the detector
    by dropout uncertainty and the attacks on it (Jayashankar et al. 2020). Without seeds such a call draws new ones.

    Args:
        num_hidden: units of every layer.
        dropout: the rate after dense layers in training.
        evaluation_dropout: rates in evaluation by kind of layer, such as {"dense": 0.1}. ``dense`` are the four dense layers,
            ``recurrent`` is the output of the LSTM. A kind that is not named has none. ``use_dropout`` changes it.

    Units: rates in [0, 1).
    """

    frame_shift = 0.020

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        *,
        num_coefficients: int = 26,
        num_context: int = 9,
        num_hidden: int = 2048,
        dropout: float = 0.05,
        evaluation_dropout: Mapping[Kind, float] | None = None,
    ) -> None:
        super().__init__(tokenizer)
        self.num_coefficients = num_coefficients
        self.num_context = num_context
        self.num_hidden = num_hidden
        self.dropout = dropout
        self._check()
        self.front_end = ContextualMfcc(num_coefficients, num_context)
        sizes = [(2 * num_context + 1) * num_coefficients, num_hidden, num_hidden]
        self.dense = nn.ModuleList(Dense(size, num_hidden, dropout, layer=layer) for layer, size in enumerate(sizes))
        self.rnn = SummedBiLSTM(num_hidden, num_hidden)
        self.rnn_dropout = KeyedDropout(0.0, layer=3)
        self.last_dense = Dense(num_hidden, num_hidden, dropout, layer=4)
        self.head = nn.Linear(num_hidden, self.tokenizer.size)
        self.use_dropout(evaluation_dropout or {})

    def use_dropout(self, rates: Mapping[Kind, float]) -> None:
        """Switch dropout on in evaluation, by kind of layer; an empty mapping switches it off. See ``evaluation_dropout``."""
        kinds = get_args(Kind)
        for kind, rate in rates.items():
            if kind not in kinds or not 0 <= rate < 1:
                raise ValueError(
                    f"evaluation_dropout: {kind!r} is {rate}, accepted are rates in [0, 1) for {' and '.join(kinds)}"
                )
        self.evaluation_dropout = dict(rates)
        for layer in [*self.dense, self.last_dense]:
            layer.dropout.evaluation_rate = rates.get("dense", 0.0)
        self.rnn_dropout.evaluation_rate = rates.get("recurrent", 0.0)

    @property
    def stochastic(self) -> bool:
        return any(self.evaluation_dropout.values())

    def num_frames(self, lengths: Tensor) -> Tensor:
        return self.front_end.log_mel.num_frames(lengths)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.stochastic and not self.training and seeds is None:
            seeds = fresh_seeds(len(waveforms))
        # Read before any work is queued, because reading them on a GPU waits until all queued work is finished.
        host_lengths = self.num_frames(lengths.cpu())
        values, frame_lengths = self.front_end(waveforms, lengths)
        for dense in self.dense:
            values = dense(values, host_lengths, seeds)
        values = self.rnn(values.transpose(0, 1), host_lengths).transpose(0, 1)
        values = self.last_dense(self.rnn_dropout(values, host_lengths, seeds), host_lengths, seeds)
        return masked(values, frame_lengths), frame_lengths

    def _check(self) -> None:
        if self.num_hidden < 1 or self.num_context < 0 or not 1 <= self.num_coefficients <= _NUM_MELS:
            raise ValueError(
                f"DeepSpeech needs num_hidden >= 1, num_context >= 0 and num_coefficients between 1 and {_NUM_MELS}, got "
                f"num_hidden={self.num_hidden}, num_context={self.num_context}, num_coefficients={self.num_coefficients}"
            )
        require_shares("DeepSpeech", dropout=self.dropout)


class Dense(nn.Module):
    """Linear layer, min(max(x, 0), 20), dropout. Shape: values (B, F, D), frame_lengths (B,), seeds (B,) -> (B, F, D')."""

    def __init__(self, num_in: int, num_out: int, dropout: float, *, layer: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_in, num_out)
        self.dropout = KeyedDropout(dropout, layer=layer)

    def forward(self, values: Tensor, frame_lengths: Tensor, seeds: Tensor | None) -> Tensor:
        values = functional.hardtanh(self.linear(values), 0.0, _HIGHEST)
        return self.dropout(values, frame_lengths, seeds)

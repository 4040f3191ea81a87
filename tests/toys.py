"""Three recognisers of a few thousand parameters: CTC, encoder-decoder, transducer.

Each has BatchNorm, dropout and an LSTM in it. They are what the contract is proven with and what quick tests attack.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import rnnt_loss

from robust_asr.masking import length_mask, masked
from robust_asr.models.base import CTCRecognizer, Encoded
from robust_asr.models.normalization import MaskedBatchNorm
from robust_asr.models.token_synchronous import TokenScores, TokenSynchronous
from robust_asr.text import CharacterTokenizer
from robust_asr.types import TokenTargets, Transcript

HOP = 320


class ToyEncoder(nn.Module):
    """Strided convolution on the waveform, masked BatchNorm, dropout, LSTM. Shape: (B, T) -> (B, F, D)."""

    def __init__(self, num_units: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, num_units, 400, stride=HOP, padding=200)
        self.norm = MaskedBatchNorm(num_units)
        self.dropout = nn.Dropout(0.2)
        self.lstm = nn.LSTM(num_units, num_units, num_layers=2, dropout=0.1, batch_first=True)

    def num_frames(self, lengths: Tensor) -> Tensor:
        return lengths // HOP + 1

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frame_lengths = self.num_frames(lengths)
        features = self.norm(self.conv(masked(waveforms, lengths)[:, None]), frame_lengths)
        hidden, _ = self.lstm(self.dropout(features.tanh()).transpose(1, 2))
        return masked(hidden, frame_lengths), frame_lengths


class ToyCTC(CTCRecognizer):
    frame_shift = HOP / 16_000
    stochastic = False

    def __init__(self, num_units: int = 8) -> None:
        super().__init__()
        self.num_units = num_units
        self.encoder = ToyEncoder(num_units)
        self.head = nn.Linear(num_units, self.tokenizer.size)

    def num_frames(self, lengths: Tensor) -> Tensor:
        return self.encoder.num_frames(lengths)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder(waveforms, lengths)


class _ToyWithTokens(Encoded):
    """What the encoder-decoder and the transducer share: characters, and no target that the frames cannot carry."""

    stochastic = False

    def __init__(self, num_units: int = 8) -> None:
        super().__init__()
        self.num_units = num_units
        self.tokenizer = CharacterTokenizer()
        self.encoder = ToyEncoder(num_units)
        self.embedding = nn.Embedding(self.tokenizer.size, num_units)
        self.predictor = nn.LSTM(num_units, num_units, batch_first=True)

    def targets(self, texts: list[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return torch.ones_like(lengths, dtype=torch.bool)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder(waveforms, lengths)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        rows = zip(hidden, frame_lengths.tolist(), strict=True)
        return [Transcript(" ".join(self.tokenizer.decode(self.best(row[:length])).split())) for row, length in rows]

    def best(self, hidden: Tensor) -> list[int]:
        """Tokens of one utterance. Shape: hidden (F, D)."""
        raise NotImplementedError

    def _predict(self, tokens: Tensor) -> Tensor:
        """Predictor outputs before the first and after each token. Shape: (B, U) -> (B, U + 1, D)."""
        return self.predictor(self.embedding(functional.pad(tokens, (1, 0))))[0]

    def _step(self, token: int, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, state = self.predictor(self.embedding(self.embedding.weight.new_tensor([[token]]).long()), state)
        return output[0, 0], state


class ToyAttention(_ToyWithTokens, TokenSynchronous):
    """Encoder-decoder with dot-product attention; id 0 opens and ends a sentence."""

    def __init__(self, num_units: int = 8) -> None:
        super().__init__(num_units)
        self.head = nn.Linear(2 * num_units, self.tokenizer.size)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        forced = self.teacher_forced(hidden, frame_lengths, targets)
        losses = -forced.scores.gather(-1, forced.tokens[..., None])[..., 0]
        return masked(losses, forced.lengths).sum(1)

    def teacher_forced(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> TokenScores:
        tokens, token_lengths = targets.tokens.to(hidden.device), targets.token_lengths.to(hidden.device)
        queries = self._predict(tokens)
        attention = (queries @ hidden.transpose(1, 2)).masked_fill(
            ~length_mask(frame_lengths, hidden.shape[1])[:, None], -torch.inf
        )
        log_probs = self.head(torch.cat([queries, attention.softmax(-1) @ hidden], -1)).log_softmax(-1)
        # Tokens are padded with zeros, so one more zero is the end of the sentence.
        return TokenScores(log_probs, functional.pad(tokens, (0, 1)), token_lengths + 1)

    def best(self, hidden: Tensor) -> list[int]:
        tokens, token, state = [], 0, None
        for _ in range(len(hidden)):
            query, state = self._step(token, state)
            context = (hidden @ query).softmax(0) @ hidden
            token = int(self.head(torch.cat([query, context])).argmax())
            if token == 0:
                break
            tokens.append(token)
        return tokens


class ToyTransducer(_ToyWithTokens):
    """RNN transducer (Graves 2012) with an additive joiner; at most two tokens a frame."""

    def __init__(self, num_units: int = 8) -> None:
        super().__init__(num_units)
        self.head = nn.Linear(num_units, self.tokenizer.size)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        longest = int(frame_lengths.max())
        tokens, token_lengths = targets.tokens.to(hidden.device), targets.token_lengths.to(hidden.device)
        joint = self.head((hidden[:, :longest, None] + self._predict(tokens)[:, None]).tanh())
        if tokens.shape[1] == 0:
            return -masked(joint.log_softmax(-1)[:, :, 0, 0], frame_lengths).sum(1)
        # torchaudio's recursion takes float32 and int32 only.
        lengths = (frame_lengths.int(), token_lengths.int())
        return rnnt_loss(joint.float(), tokens.int(), *lengths, blank=0, reduction="none")

    def best(self, hidden: Tensor) -> list[int]:
        tokens: list[int] = []
        query, state = self._step(0, None)
        for frame in hidden:
            for _ in range(2):
                token = int(self.head((frame + query).tanh()).argmax())
                if token == 0:
                    break
                tokens.append(token)
                query, state = self._step(token, state)
        return tokens


class ToyWindowed(ToyCTC):
    """Pays for a fixed window, as a Whisper does, whatever it is given.

    Args:
        window_seconds: the window.
    """

    def __init__(self, num_units: int = 8, *, window_seconds: float = 5.0) -> None:
        super().__init__(num_units)
        self.window_seconds = window_seconds

    def window(self, lengths: Tensor) -> Tensor:
        return lengths.clamp(min=round(self.window_seconds * self.sample_rate))

"""RNN transducer (Graves 2012), which Yang et al. 2022 attacked.

Legend: B utterances, T samples, F frames, S steps, D hidden units, U tokens, J joint units, N hypotheses, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import masked
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.models.kaldi_fbank import HOP, KaldiFbank
from robust_asr.models.normalization import MaskedBatchNorm
from robust_asr.models.normed_features import NormedFeatures
from robust_asr.models.spec_augment import SpecAugment
from robust_asr.models.token_synchronous import TokenScores, TokenSynchronous
from robust_asr.models.transducer_loss import next_scores, transducer_loss
from robust_asr.ranges import require_shares, require_sizes
from robust_asr.search.alignment import best_frames
from robust_asr.search.base import Search
from robust_asr.search.transducer import TransducerBeam
from robust_asr.text import CharacterTokenizer, Tokenizer
from robust_asr.types import TokenTargets, Transcript


class LSTMEncoder(NormedFeatures):
    """Log-mel, BatchNorm of each bin, frames in stacks, LSTMs that hear the past only. The padding has no effect.

    The defaults are those of Yang et al. 2022, five layers of 1,024; they do not say how frames become steps, nor the direction.

    Args:
        stack: how many frames of 10 ms become a step.
        dropout: between the layers, in training.
        spec_augment: masks the normalised features in training; no masks by default.

    Units: dropout in [0, 1).
    Shape: waveforms (B, T), lengths (B,) -> hidden (B, S, D), zero in the padding, step_lengths (B,).
    """

    sample_rate = 16_000

    def __init__(
        self,
        *,
        num_mels: int = 80,
        stack: int = 3,
        width: int = 1024,
        num_layers: int = 5,
        dropout: float = 0.0,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        require_sizes("LSTMEncoder", num_mels=num_mels, stack=stack, width=width, num_layers=num_layers)
        require_shares("LSTMEncoder", dropout=dropout)
        self.num_mels = num_mels
        self.stack = stack
        self.width = width
        self.num_layers = num_layers
        self.dropout = dropout
        self.front_end = KaldiFbank(num_mels=num_mels)
        self.frame_shift = stack * HOP / self.sample_rate
        self.feature_norm = MaskedBatchNorm(num_mels)
        self.spec_augment = spec_augment
        between = dropout if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(stack * num_mels, width, num_layers, dropout=between, batch_first=True)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Steps of the result. Shape: (B,) samples -> (B,) steps."""
        return -(-self.front_end.num_frames(lengths) // self.stack)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features, _ = self.features(waveforms, lengths)
        missing = -features.shape[1] % self.stack
        stacked = functional.pad(features, (0, 0, 0, missing)).unflatten(1, (-1, self.stack)).flatten(2)
        step_lengths = self.num_frames(lengths)
        return masked(self.lstm(stacked)[0], step_lengths), step_lengths


class Predictor(nn.Module):
    """An LSTM over the tokens written so far; the blank, number 0, stands before the first.

    Shape: tokens (B, U) -> units before the first token and after each (B, U + 1, D).
    """

    def __init__(self, size: int, *, embedding_width: int, width: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, embedding_width)
        self.lstm = nn.LSTM(embedding_width, width, num_layers, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lstm(self.embedding(functional.pad(tokens, (1, 0))))[0]

    def initial_state(self, num: int) -> Tensor:
        """Shape: -> (N, 2, layers, D)."""
        return self.embedding.weight.new_zeros(num, 2, self.lstm.num_layers, self.lstm.hidden_size)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: tokens (N,), state (N, 2, layers, D) -> units (N, D), the state after the tokens."""
        output, cell = (part.contiguous() for part in state.permute(1, 2, 0, 3))
        values, after = self.lstm(self.embedding(tokens)[:, None], (output, cell))
        return values[:, 0], torch.stack(after).permute(2, 0, 1, 3)


class RNNT(TokenSynchronous):
    """Encoder, predictor, and a joint layer that expects a blank or a token of each pair of frame and text.

    The loss is the negative log-likelihood of a text over all its alignments. A frame may hold any number of tokens, so every
    text fits into every audio. The joint layer is tanh of the sum of two projections, then a linear layer. The defaults are those
    of Yang et al. 2022, two layers of 1,024 over embeddings of 512; they do not give the joint layer, 640 is ours. Theirs are
    1,000 pieces of words as tokens: ``robust_asr.text.bpe.BpeTokenizer``.

    ``max_joint_scores`` bounds the memory of a loss, in log-probabilities (``next_scores``); it is no part of the architecture.
    """

    stochastic = False
    max_joint_scores = 2**24

    def __init__(
        self,
        encoder: LSTMEncoder | ConformerEncoder,
        *,
        tokenizer: Tokenizer | None = None,
        embedding_width: int = 512,
        predictor_width: int = 1024,
        predictor_layers: int = 2,
        joint_width: int = 640,
    ) -> None:
        super().__init__()
        self.embedding_width = embedding_width
        self.predictor_width = predictor_width
        self.predictor_layers = predictor_layers
        self.joint_width = joint_width
        require_sizes("RNNT", embedding_width=embedding_width, predictor_width=predictor_width)
        require_sizes("RNNT", predictor_layers=predictor_layers, joint_width=joint_width)
        self.tokenizer = tokenizer if tokenizer is not None else CharacterTokenizer()
        self.encoder = encoder
        self.predictor = Predictor(
            self.tokenizer.size, embedding_width=embedding_width, width=predictor_width, num_layers=predictor_layers
        )
        self.from_frames = nn.Linear(encoder.width, joint_width)
        self.from_tokens = nn.Linear(predictor_width, joint_width, bias=False)
        self.head = nn.Linear(joint_width, self.tokenizer.size)
        self._search = TransducerBeam()

    @property
    def search(self) -> TransducerBeam:
        return self._search

    def use_search(self, search: Search) -> None:
        if not isinstance(search, TransducerBeam):
            raise ValueError(f"search: {type(self).__name__} takes a TransducerBeam, found {type(search).__name__}")
        self._search = search

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return torch.ones_like(lengths, dtype=torch.bool)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder(waveforms, lengths)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        scores = self._next_scores(self.from_frames(hidden), frame_lengths, self._predicted(targets, hidden), targets)
        return transducer_loss(scores, frame_lengths, targets.token_lengths)

    def teacher_forced(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> TokenScores:
        """The scores at each step of the text's most probable alignment: a token, or a blank, which ends a frame.

        Which alignment is the most probable has no gradient.

        Shape: -> F + U steps, of which the last blank is the end of the text.
        """
        frames, predicted = self.from_frames(hidden), self._predicted(targets, hidden)
        token_lengths = targets.token_lengths.to(hidden.device, non_blocking=True)
        with torch.no_grad():
            scores = self._next_scores(frames, frame_lengths, predicted, targets)
            emitted = best_frames(scores, frame_lengths, token_lengths)
        # Before token k come k tokens, and as many blanks as frames.
        numbers = torch.arange(emitted.shape[1], device=hidden.device)
        steps = torch.where(numbers < token_lengths[:, None], emitted + numbers, scores.shape[1] + numbers)
        writes = torch.zeros(len(hidden), scores.shape[1] + len(numbers) + 1, dtype=torch.bool, device=hidden.device)
        writes = writes.scatter(1, steps, True)[:, :-1]
        written = (writes.cumsum(1) - writes.long()).clamp(max=emitted.shape[1])
        heard = (torch.arange(writes.shape[1], device=hidden.device) - written).clamp(max=scores.shape[1] - 1)
        following = functional.pad(targets.tokens.to(hidden.device), (0, 1), value=self.tokenizer.blank)
        return TokenScores(
            self.log_probs(_at(frames, heard), _at(predicted, written)),
            torch.where(writes, following.gather(1, written), self.tokenizer.blank),
            frame_lengths + token_lengths,
        )

    def _predicted(self, targets: TokenTargets, hidden: Tensor) -> Tensor:
        """Shape: -> (B, U + 1, J)."""
        return self.from_tokens(self.predictor(targets.tokens.to(hidden.device, non_blocking=True)))

    def _next_scores(self, frames: Tensor, frame_lengths: Tensor, predicted: Tensor, targets: TokenTargets) -> Tensor:
        """Shape: (B, F, J), (B,), (B, U + 1, J) -> (B, F, U + 1, 2)."""
        sizes = {"size": self.tokenizer.size, "blank": self.tokenizer.blank, "max_scores": self.max_joint_scores}
        return next_scores(self.log_probs, frames, frame_lengths, predicted, targets, **sizes)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        frames = self.from_frames(hidden)
        return self.search(self, frames, frame_lengths, self.tokenizer, frame_shift=self.encoder.frame_shift)

    def initial_state(self, num: int) -> Tensor:
        """The predictor's state before the first token, which is the blank. Shape: -> (N, 2, layers, D)."""
        return self.predictor.initial_state(num)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: tokens (N,), state (N, 2, layers, D) -> joint units (N, J), the state after the tokens."""
        units, state = self.predictor.step(tokens, state)
        return self.from_tokens(units), state

    def log_probs(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """Log-probabilities of blank and tokens. Shape: (..., J), (..., J) -> (..., V)."""
        scores = self.head((frames + predicted).tanh())
        # At least float32: in half precision the recursion underflows on long utterances.
        return (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)


def _at(units: Tensor, places: Tensor) -> Tensor:
    """Shape: (B, N, J), (B, S) -> (B, S, J)."""
    return units.gather(1, places[..., None].expand(-1, -1, units.shape[2]))

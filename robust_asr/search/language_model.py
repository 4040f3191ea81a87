"""A small language model over the tokens of a recogniser, for shallow fusion.

Legend: N texts or hypotheses, U tokens, D hidden units, L layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import masked
from robust_asr.ranges import require_shares, require_sizes
from robust_asr.text import CharacterTokenizer, Tokenizer
from robust_asr.types import TokenTargets

# The name of its part in a checkpoint.
LANGUAGE_MODEL = "language_model"


class LanguageModel(nn.Module):
    """An LSTM that expects the next token. Id 0 opens and ends a text.

    A search takes ``initial_state`` and then ``step``, token by token; ``state[rows]`` are the states of other hypotheses.

    Units: dropout in [0, 1), between the layers and before the output, in training mode only.
    """

    def __init__(
        self, tokenizer: Tokenizer | None = None, *, width: int = 512, num_layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        require_sizes("LanguageModel", width=width, num_layers=num_layers)
        require_shares("LanguageModel", dropout=dropout)
        self.tokenizer = tokenizer if tokenizer is not None else CharacterTokenizer()
        self.width = width
        self.num_layers = num_layers
        self.dropout = dropout
        self.embedding = nn.Embedding(self.tokenizer.size, width)
        self.lstm = nn.LSTM(width, width, num_layers, dropout=dropout if num_layers > 1 else 0.0, batch_first=True)
        self.output_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.tokenizer.size)

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def loss(self, targets: TokenTargets) -> Tensor:
        """Negative log-likelihood of each text and its end. Shape: tokens (N, U) -> (N,). Units: nats."""
        tokens = targets.tokens.to(self.head.weight.device, non_blocking=True)
        token_lengths = targets.token_lengths.to(tokens.device, non_blocking=True)
        values, _ = self.lstm(self.embedding(functional.pad(tokens, (1, 0))))
        # Texts are padded with zeros, so one more zero is the end of the text.
        wanted = functional.pad(tokens, (0, 1))
        losses = -self._log_probs(values).gather(-1, wanted[..., None])[..., 0]
        return masked(losses, token_lengths + 1).sum(1)

    def initial_state(self, num: int) -> Tensor:
        """The state before the first token, which is id 0. Shape: (N, 2, L, D)."""
        return self.head.weight.new_zeros(num, 2, self.num_layers, self.width)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next token. Shape: tokens (N,), state (N, 2, L, D) -> (N, V), the state after the tokens."""
        output, cell = (part.contiguous() for part in state.permute(1, 2, 0, 3))
        values, after = self.lstm(self.embedding(tokens)[:, None], (output, cell))
        return self._log_probs(values)[:, 0], torch.stack(after).permute(2, 0, 1, 3)

    def _log_probs(self, values: Tensor) -> Tensor:
        scores = self.head(self.output_dropout(values))
        return (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)

"""The decoder of a Transformer (Vaswani et al. 2017): all tokens at once for a loss, or one after another for a search.

Legend: B utterances, F frames, D hidden units, H heads, U tokens, V vocabulary, K hypotheses of an utterance, N = B K, P tokens of
    the past.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import length_mask

# Keys and values of an attention, (B, H, F, D / H) each.
KeysAndValues = tuple[Tensor, Tensor]


def positions(num: int, width: int, *, like: Tensor, first: int = 0) -> Tensor:
    """Sines in the first half of the units, cosines in the second, of the positions from ``first`` on; computed in float32.

    Shape: (num, D), of the device of ``like``, float64 where ``like`` is.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    steps = torch.arange(first, first + num, device=like.device, dtype=dtype)
    half = torch.arange((width + 1) // 2, device=like.device, dtype=dtype)
    angles = steps[:, None] * (half * (-math.log(10_000) / max(len(half) - 1, 1))).exp()
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]


class Attention(nn.Module):
    """Multi-head attention: that of ``nn.MultiheadAttention``, with keys and values that can be kept.

    Units: dropout of the attention weights in [0, 1), in training mode only.
    """

    def __init__(self, width: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def keys_and_values(self, values: Tensor) -> KeysAndValues:
        """Shape: (B, F, D) -> twice (B, H, F, D / H)."""
        return self._heads(self.key(values)), self._heads(self.value(values))

    def forward(
        self, queries: Tensor, attended: KeysAndValues, *, mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Shape: queries (B, U, D), mask (B, 1, 1, F) True where attention is allowed -> (B, U, D)."""
        mixed = functional.scaled_dot_product_attention(
            self._heads(self.query(queries)),
            *attended,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """How much each query attends to each frame. Shape: (B, U, D), (B, H, F, D / H), (B, 1, 1, F) -> (B, H, U, F)."""
        scores = self._heads(self.query(queries)) @ keys.transpose(2, 3) * keys.shape[-1] ** -0.5
        return scores.masked_fill(~mask, -torch.inf).softmax(-1)

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Attention to the tokens so far, attention to the frames, feed-forward layer; each normalises its input first.

    It is ``nn.TransformerDecoderLayer(norm_first=True)`` with ReLU.
    """

    def __init__(self, width: int, *, num_heads: int, feed_forward_width: int, dropout: float) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, num_heads=num_heads, dropout=dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, num_heads=num_heads, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, feed_forward_width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward_width, width),
            nn.Dropout(dropout),
        )

    def forward(
        self, values: Tensor, heard: KeysAndValues, mask: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """All tokens at once. Shape: values (B, U, D), mask (B, 1, 1, F) -> (B, U, D).

        ``weights`` is given the attention to the frames, (B, H, U, F).
        """
        normed = self.self_norm(values)
        attended = self.self_attention.keys_and_values(normed)
        values = values + self.dropout(self.self_attention(normed, attended, is_causal=True))
        if weights is not None:
            weights.append(self.cross_attention.weights(self.cross_norm(values), heard[0], mask))
        return self._after_self_attention(values, heard, mask)

    def step(
        self, values: Tensor, past: KeysAndValues | None, heard: KeysAndValues, mask: Tensor
    ) -> tuple[Tensor, KeysAndValues]:
        """One more token of each hypothesis. Shape: values (B, K, D), past (N, H, P, D / H) -> (B, K, D), the new past."""
        normed = self.self_norm(values).flatten(0, 1)[:, None]
        added = self.self_attention.keys_and_values(normed)
        past = added if past is None else tuple(torch.cat(pair, 2) for pair in zip(past, added, strict=True))
        values = values + self.dropout(self.self_attention(normed, past).view_as(values))
        return self._after_self_attention(values, heard, mask), past

    def _after_self_attention(self, values: Tensor, heard: KeysAndValues, mask: Tensor) -> Tensor:
        values = values + self.dropout(self.cross_attention(self.cross_norm(values), heard, mask=mask))
        return values + self.feed_forward(values)


@dataclass(frozen=True)
class DecoderState:
    """What a search keeps between two tokens: keys and values of each layer. ``state[rows]`` are other hypotheses, each among
    those of its own utterance.

    Shape: past (N, H, P, D / H), heard (B, H, F, D / H), mask (B, 1, 1, F).
    """

    past: tuple[KeysAndValues, ...]
    heard: tuple[KeysAndValues, ...]
    mask: Tensor
    num_tokens: int = 0

    def __getitem__(self, rows: Tensor) -> DecoderState:
        past = tuple((keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.past)
        return DecoderState(past, self.heard, self.mask, self.num_tokens)


class TransformerDecoder(nn.Module):
    """Embedding with sinusoidal positions, layers, LayerNorm. Which token is next follows from its states by a linear head.

    Units: dropout in [0, 1).
    """

    def __init__(
        self, size: int, *, width: int, num_layers: int, num_heads: int, feed_forward_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(width, num_heads=num_heads, feed_forward_width=feed_forward_width, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, hidden: Tensor, frame_lengths: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """States after each token, which know no later token. ``weights`` is given each layer's attention, (B, H, U, F).

        Shape: tokens (B, U), hidden (B, F, D), frame_lengths (B,), at least 1 -> (B, U, D).
        """
        mask = _frame_mask(hidden, frame_lengths)
        values = self._embedded(tokens, first=0)
        for layer in self.layers:
            values = layer(values, layer.cross_attention.keys_and_values(hidden), mask, weights)
        return self.norm(values)

    def start(self, hidden: Tensor, frame_lengths: Tensor) -> DecoderState:
        """The state before the first token. Shape: hidden (B, F, D), frame_lengths (B,)."""
        heard = tuple(layer.cross_attention.keys_and_values(hidden) for layer in self.layers)
        return DecoderState((), heard, _frame_mask(hidden, frame_lengths))

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """As ``forward``, for one more token of each hypothesis. Shape: tokens (N,) -> (N, D)."""
        num_utterances = len(state.mask)
        values = self._embedded(tokens.view(num_utterances, -1, 1).flatten(0, 1), first=state.num_tokens)
        values = values.view(num_utterances, -1, values.shape[-1])
        past = []
        for index, (layer, heard) in enumerate(zip(self.layers, state.heard, strict=True)):
            values, layer_past = layer.step(values, state.past[index] if state.past else None, heard, state.mask)
            past.append(layer_past)
        state = DecoderState(tuple(past), state.heard, state.mask, state.num_tokens + 1)
        return self.norm(values).flatten(0, 1), state

    def _embedded(self, tokens: Tensor, *, first: int) -> Tensor:
        values = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        return self.dropout(values + positions(tokens.shape[1], values.shape[-1], like=values, first=first))


def _frame_mask(hidden: Tensor, frame_lengths: Tensor) -> Tensor:
    return length_mask(frame_lengths, hidden.shape[1])[:, None, None]

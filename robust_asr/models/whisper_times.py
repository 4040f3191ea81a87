"""When Whisper's words are spoken: where its decoder looks while it writes them.

Legend: N alignment heads, U tokens, F frames of 20 ms, D units of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from robust_asr.types import Word

# The width of the median filter, in frames, and the seconds of a frame.
_WIDTH, _SHIFT = 7, 0.02


class Gaze:
    """Collects what the alignment heads look at, while a decoder writes one token after the other, as a context manager.

    A step of the decoder reads a token. What the heads look at while they read it is where that token is heard, as in
    transformers; the tokens of the prompt do not count.

    Args:
        decoder: that of ``WhisperModel``.
        heads: (layer, head) of each alignment head, as in ``generation_config.json``; without any, no token has a place.

    Attributes:
        sure: the log-probability of each token of each utterance that was written; none without heads.
    """

    def __init__(self, decoder: Any, heads: Sequence[Sequence[int]], num_utterances: int) -> None:
        self._heads = heads
        self._attention = {layer: decoder.layers[layer].encoder_attn for layer, _ in heads}
        self._keys: dict[int, Tensor] = {}
        self._queries: dict[int, Tensor] = {}
        self._read: list[list[Tensor]] = [[] for _ in range(num_utterances)]
        self.sure: list[list[float]] = [[] for _ in range(num_utterances)]

    def __enter__(self) -> Self:
        self._hooks = [
            hook
            for layer, attention in self._attention.items()
            for hook in (
                attention.q_proj.register_forward_hook(_keeps(self._queries, layer)),
                attention.k_proj.register_forward_hook(_keeps(self._keys, layer)),
            )
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def follow(self, rows: Sequence[int], scores: Tensor, best: Tensor, *, reads: bool) -> None:
        """A step of these utterances, which read a token of the text or the prompt. Shape: scores (b, V), best (b,)."""
        if not self._heads:
            return
        sure = scores.log_softmax(-1).gather(-1, best[:, None])[:, 0].tolist()
        for row, one in zip(rows, sure, strict=True):
            self.sure[row].append(one)
        if reads:
            heads = [self._of_head(self._queries[layer][:, -1], layer, head) for layer, head in self._heads]
            for row, queries in zip(rows, torch.stack(heads, 1), strict=True):
                self._read[row].append(queries)

    def starts(self, row: int, frames: int) -> list[int]:
        """The frame at which each token that was read begins (``starts_of``)."""
        return starts_of(self.weights(row), frames) if self._read[row] else []

    def weights(self, row: int) -> Tensor:
        """The attention of each head to the frames, for each token that was read. Shape: -> (N, U, F)."""
        queries = torch.stack(self._read[row], 1)
        keys = torch.stack([self._of_head(self._keys[layer][row], layer, head) for layer, head in self._heads])
        scale = next(iter(self._attention.values())).scaling
        return (scale * queries @ keys.transpose(1, 2)).float().softmax(-1)

    def _of_head(self, units: Tensor, layer: int, head: int) -> Tensor:
        """Shape: (..., units of the layer) -> (..., D)."""
        return units.unflatten(-1, (self._attention[layer].num_heads, -1))[..., head, :]


def words_of(
    words: Sequence[tuple[str, int]], starts: Sequence[int], frames: int, sure: Sequence[float]
) -> tuple[Word, ...]:
    """Words with their times: a word ends where the next begins, the last one with the utterance.

    A token that was written last and never read begins where the one before it does. A word's confidence is the geometric mean of
    the probabilities of its tokens.

    Args:
        words: each word, and the place of its first token.
        starts: the frame at which each token begins; none where the model names no alignment heads, and then there is no word.
    """
    if not starts or not words:
        return ()
    places = [place for _, place in words]
    begins = [starts[min(place, len(starts) - 1)] * _SHIFT for place in places]
    ends = [*begins[1:], frames * _SHIFT]
    bounds = zip(places, [*places[1:], len(sure)], strict=True)
    means = [math.exp(sum(sure[first:last]) / max(last - first, 1)) for first, last in bounds]
    rows = zip(words, begins, ends, means, strict=True)
    return tuple(Word(text, begin, end, mean) for (text, _), begin, end, mean in rows)


def starts_of(weights: Tensor, frames: int) -> list[int]:
    """The frame at which each token begins: the cheapest path through tokens and frames, along the attention.

    Every head's attention is normalised over the tokens and smoothed by a median filter; its mean over the heads is what dynamic
    time warping follows.

    Shape: weights (N, U, F), of which the first ``frames`` count -> U frames that never fall.

    Source: ``_extract_token_timestamps`` of transformers, after OpenAI's ``timing.py``.
    """
    weights = weights[..., :frames]
    deviation, mean = torch.std_mean(weights, -2, keepdim=True, unbiased=False)
    # A single token looks as all tokens do on average.
    weights = ((weights - mean) / deviation).nan_to_num(0.0, 0.0, 0.0)
    return _first_frames(-_median(weights).mean(0).double().cpu().numpy())


def _median(values: Tensor) -> Tensor:
    """Shape: (N, U, F) -> (N, U, F)."""
    edge = _WIDTH // 2
    if values.shape[-1] <= edge:
        return values
    return nn.functional.pad(values, (edge, edge), mode="reflect").unfold(-1, _WIDTH, 1).median(-1).values


def _first_frames(costs: np.ndarray) -> list[int]:
    """The first frame of each token on the cheapest monotone path from the first of both to the last. Shape: (U, F)."""
    tokens, frames = costs.shape
    total = np.full((tokens + 1, frames + 1), np.inf, dtype=np.float32)
    total[0, 0] = 0
    # Along diagonals: a cell needs its neighbours on the two before.
    for diagonal in range(2, tokens + frames + 1):
        token = np.arange(max(1, diagonal - frames), min(tokens, diagonal - 1) + 1)
        frame = diagonal - token
        before = np.minimum(np.minimum(total[token - 1, frame - 1], total[token - 1, frame]), total[token, frame - 1])
        total[token, frame] = costs[token - 1, frame - 1] + before
    first, token, frame = [0] * tokens, tokens, frames
    while token > 0 and frame > 0:
        first[token - 1] = frame - 1
        both, up, left = total[token - 1, frame - 1], total[token - 1, frame], total[token, frame - 1]
        if both < up and both < left:
            token, frame = token - 1, frame - 1
        elif up < both and up < left:
            token -= 1
        else:
            frame -= 1
    return first


def _keeps(found: dict[int, Tensor], layer: int) -> Any:
    def keep(module: nn.Module, given: object, made: Tensor) -> None:
        found[layer] = made.detach()

    return keep

"""Partition functions by writing down every path: the oracle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby, product

import torch
from torch import Tensor

SILENCE = 1


def log_total(log_probs: Tensor, log_bigram: Tensor, allowed: Iterable[tuple[int, ...]] | None = None) -> Tensor:
    """Over all labellings of the frames, or those of ``allowed`` phone sequences. Shape: (F, V), (V, V) -> ()."""
    allowed = None if allowed is None else set(allowed)
    scores = []
    for labels in product(range(log_probs.shape[1]), repeat=len(log_probs)):
        phones = tuple(label for label, _ in groupby(labels) if label)
        if allowed is None or phones in allowed:
            bigrams = sum(log_bigram[pair] for pair in zip((0, *phones), (*phones, 0), strict=True))
            scores.append(bigrams + sum(log_probs[frame, label] for frame, label in enumerate(labels)))
    return torch.stack(scores).logsumexp(0) if scores else torch.tensor(-math.inf, dtype=log_probs.dtype)


def sequences(words: Sequence[Sequence[tuple[int, ...]]]) -> set[tuple[int, ...]]:
    """Every way to say the words, with or without silence before, between and after them."""
    found = set()
    for variants in product(*words):
        for silences in product(((), (SILENCE,)), repeat=len(words) + 1):
            parts = [part for pair in zip(silences, (*variants, ()), strict=True) for part in pair]
            found.add(sum(parts, ()))
    return found


def random_bigram(num_labels: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(num_labels, num_labels, generator=generator, dtype=torch.float64)).log_softmax(-1)


def random_log_probs(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)

"""The CTC that every frame-synchronous recogniser shares, against enumeration of all paths."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.losses import ctc_frames_needed, ctc_loss
from robust_asr.types import TokenTargets

VOCABULARY = 3


def targets_of(sequences: list[list[int]]) -> TokenTargets:
    longest = max(map(len, sequences))
    rows = [sequence + [0] * (longest - len(sequence)) for sequence in sequences]
    tokens = torch.tensor(rows, dtype=torch.long).reshape(len(sequences), longest)
    return TokenTargets(tokens, torch.tensor([len(sequence) for sequence in sequences]))


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label]


def enumerated(log_probs: torch.Tensor, tokens: list[int]) -> float:
    paths = itertools.product(range(VOCABULARY), repeat=len(log_probs))
    total = sum(
        math.exp(sum(float(log_probs[frame, label]) for frame, label in enumerate(path)))
        for path in paths
        if collapsed(path) == tokens
    )
    return -math.log(total) if total else math.inf


TOKENS = st.lists(st.integers(1, VOCABULARY - 1), max_size=4)


@given(st.lists(st.tuples(TOKENS, st.integers(1, 5)), min_size=1, max_size=3), st.integers(0, 99))
def test_loss_is_the_sum_over_paths(rows: list[tuple[list[int], int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(len(rows), 5, VOCABULARY, generator=generator, dtype=torch.float64).log_softmax(-1)
    log_probs.requires_grad_(True)
    frame_lengths = torch.tensor([length for _, length in rows])
    losses = ctc_loss(log_probs, frame_lengths, targets_of([tokens for tokens, _ in rows]))
    expected = [enumerated(log_probs[row, :length].detach(), tokens) for row, (tokens, length) in enumerate(rows)]
    assert losses.tolist() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    for row, (_, length) in enumerate(rows):
        assert gradient[row].isfinite().all() and not gradient[row, length:].any()
        assert bool(gradient[row].any()) == math.isfinite(expected[row])


@given(st.lists(TOKENS, min_size=1, max_size=4))
def test_frames_needed_is_the_shortest_path(sequences: list[list[int]]) -> None:
    shortest = [
        next(
            frames
            for frames in range(9)
            if any(collapsed(path) == tokens for path in itertools.product(range(VOCABULARY), repeat=frames))
        )
        for tokens in sequences
    ]
    assert ctc_frames_needed(targets_of(sequences)).tolist() == shortest

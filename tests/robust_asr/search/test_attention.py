from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
import torch
from torch import Tensor

from robust_asr.search.attention import attended_spans


def _weights(*shape: int, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    return (sharpness * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).softmax(-1)


def _every_spans(num_tokens: int, num_frames: int) -> list[list[tuple[int, int]]]:
    """All ways to give tokens spans of at least a frame, from left to right."""
    edges = combinations_with_replacement(range(num_frames + 1), 2 * num_tokens)
    every = [list(zip(edge[::2], edge[1::2], strict=True)) for edge in edges]
    return [spans for spans in every if all(start < end for start, end in spans)]


def _gain(weights: Tensor, spans: list[tuple[int, int]]) -> float:
    evenly = weights.shape[1]
    return sum(float((weights[token, start:end] * evenly).log().sum()) for token, (start, end) in enumerate(spans))


@pytest.mark.parametrize("seed", range(4))
def test_spans_and_head_are_the_best_of_all(seed: int):
    weights = _weights(1, 3, 2, 5, seed=seed).double()
    every = [(_gain(head, spans), spans) for head in weights[0] for spans in _every_spans(2, 5)]
    assert attended_spans(weights, torch.tensor([5]), torch.tensor([2])) == [max(every)[1]]


def test_a_head_that_looks_at_one_frame_is_not_taken():
    """The most focused attention need not follow the text."""
    follows = torch.full((3, 6), 0.02)
    for token in range(3):
        follows[token, 2 * token : 2 * token + 2] = 0.46
    stares = torch.full((3, 6), 0.001)
    stares[:, 5] = 0.995
    weights = torch.stack([stares, follows])[None]
    assert attended_spans(weights, torch.tensor([6]), torch.tensor([3])) == [[(0, 2), (2, 4), (4, 6)]]


def test_frames_that_nobody_attends_to_are_nobodys():
    weights = torch.full((1, 1, 2, 8), 0.01)
    weights[0, 0, 0, 2:4] = 0.47
    weights[0, 0, 1, 5] = 0.93
    assert attended_spans(weights, torch.tensor([8]), torch.tensor([2])) == [[(2, 4), (5, 6)]]


def test_an_utterance_does_not_depend_on_its_batch():
    frames, tokens = torch.tensor([7, 4, 3, 1]), torch.tensor([3, 0, 3, 1])
    weights = torch.zeros(4, 2, 3, 9)
    for row, length in enumerate(frames.tolist()):
        weights[row, ..., :length] = _weights(2, 3, length, seed=row)
    together = attended_spans(weights, frames, tokens)
    for row in range(4):
        alone = weights[row : row + 1, :, : tokens[row], : frames[row]]
        assert attended_spans(alone, frames[row : row + 1], tokens[row : row + 1]) == [together[row]]
    assert [len(spans) for spans in together] == tokens.tolist()

"""A transducer's most probable alignment, beside all of them."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
import torch
from torch import Tensor

from robust_asr.search.alignment import best_frames

FRAME_LENGTHS, TOKEN_LENGTHS = torch.tensor([4, 3, 1, 2, 4]), torch.tensor([3, 0, 2, 1, 3])


def every_alignment(scores: Tensor, num_frames: int, num_tokens: int) -> dict[tuple[int, ...], float]:
    """The frames of the tokens -> the log-probability. Shape: scores (F, U + 1, 2)."""
    found = {}
    for frames in combinations_with_replacement(range(num_frames), num_tokens):
        blanks = [float(scores[frame, sum(other <= frame for other in frames), 0]) for frame in range(num_frames)]
        tokens = [float(scores[frame, number, 1]) for number, frame in enumerate(frames)]
        found[frames] = sum(blanks) + sum(tokens)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_no_alignment_is_more_probable(seed: int) -> None:
    scores = 3 * torch.randn(5, 4, 4, 2, generator=torch.Generator().manual_seed(seed))
    frames = best_frames(scores, FRAME_LENGTHS, TOKEN_LENGTHS)
    assert frames.shape == (5, 3)
    for row, (num_frames, num_tokens) in enumerate(zip(FRAME_LENGTHS.tolist(), TOKEN_LENGTHS.tolist(), strict=True)):
        every = every_alignment(scores[row], num_frames, num_tokens)
        assert tuple(frames[row, :num_tokens].tolist()) == max(every, key=every.get)
        assert frames[row, num_tokens:].tolist() == [0] * (3 - num_tokens)


def test_a_batch_without_tokens() -> None:
    assert best_frames(torch.zeros(2, 3, 1, 2), torch.tensor([3, 1]), torch.tensor([0, 0])).shape == (2, 0)

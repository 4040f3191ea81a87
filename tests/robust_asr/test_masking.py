from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.masking import length_mask, masked


@given(st.lists(st.integers(0, 8), max_size=5), st.integers(0, 6))
def test_mask_is_the_definition(lengths: list[int], size: int) -> None:
    mask = length_mask(torch.tensor(lengths, dtype=torch.long), size)
    assert mask.dtype == torch.bool and mask.shape == (len(lengths), size)
    assert mask.tolist() == [[position < length for position in range(size)] for length in lengths]


def test_padding_becomes_zero_whatever_it_was() -> None:
    values = torch.tensor([[[1.0, 2.0], [torch.nan, torch.inf]], [[3.0, 4.0], [5.0, 6.0]]], requires_grad=True)
    result = masked(values, torch.tensor([1, 2]))
    assert result.tolist() == [[[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [5.0, 6.0]]]
    result.sum().backward()
    assert values.grad.tolist() == [[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]


def test_keeps_type_and_shape() -> None:
    assert masked(torch.ones(2, 3, dtype=torch.long), torch.tensor([3, 0])).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert masked(torch.ones(0, 3), torch.zeros(0)).shape == (0, 3)

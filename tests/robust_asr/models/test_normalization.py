from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robust_asr.masking import length_mask
from robust_asr.models.normalization import MaskedBatchNorm

LENGTHS = torch.tensor([7, 4, 1])


def pair(kind: type[nn.Module], num_features: int = 3, **arguments: object) -> tuple[MaskedBatchNorm, nn.Module]:
    """The masked layer and torch's, with the same arbitrary weights."""
    masked, plain = MaskedBatchNorm(num_features, **arguments), kind(num_features, **arguments)
    with torch.no_grad():
        masked.weight.normal_()
        masked.bias.normal_()
    plain.load_state_dict(masked.state_dict())
    return masked, plain


def valid_rows(values: Tensor, lengths: Tensor) -> Tensor:
    """Shape: (B, C, F) -> (frames, C)."""
    return values.transpose(1, 2)[length_mask(lengths, values.shape[-1])]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (3, 3, 7)), (nn.BatchNorm2d, (3, 3, 5, 7))])
def test_equal_lengths_are_the_plain_layer(kind: type[nn.Module], shape: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(0)
    masked, plain = pair(kind)
    values = [(3 * torch.randn(shape) + 2).requires_grad_(True)]
    values.append(values[0].detach().clone().requires_grad_(True))
    results = [masked.train(training)(values[0], torch.full((3,), 7)), plain.train(training)(values[1])]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(dict(masked.named_buffers()), dict(plain.named_buffers()))
    for result in results:
        result.sin().sum().backward()
    torch.testing.assert_close(values[0].grad, values[1].grad)
    torch.testing.assert_close(masked.weight.grad, plain.weight.grad)
    torch.testing.assert_close(masked.bias.grad, plain.bias.grad)


@given(lengths=st.lists(st.integers(1, 7), min_size=2, max_size=4), seed=st.integers(0, 99), training=st.booleans())
def test_is_the_plain_layer_on_valid_frames(lengths: list[int], seed: int, training: bool) -> None:
    torch.manual_seed(seed)
    sizes = torch.tensor(lengths)
    masked, plain = pair(nn.BatchNorm1d)
    values = torch.randn(len(lengths), 3, 7)
    # Whatever stands in the padding: infinity times zero would be nan.
    dirty = torch.where(length_mask(sizes, 7)[:, None], values, torch.inf)
    result = masked.train(training)(dirty, sizes)
    expected = plain.train(training)(valid_rows(values, sizes))
    torch.testing.assert_close(valid_rows(result, sizes), expected)
    assert bool((result.masked_select(~length_mask(sizes, 7)[:, None]) == 0).all())
    torch.testing.assert_close(dict(masked.named_buffers()), dict(plain.named_buffers()))


def test_gradient_stays_out_of_the_padding() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 3, 7, dtype=torch.float64, requires_grad=True)
    masked = MaskedBatchNorm(3).double()
    masked(values, LENGTHS).sin().sum().backward()
    assert bool((values.grad.masked_select(~length_mask(LENGTHS, 7)[:, None]) == 0).all())
    masked.momentum = 0.0
    assert torch.autograd.gradcheck(lambda x: masked(x, LENGTHS), values)


def test_cumulative_average() -> None:
    # Averaging of weights sets momentum to None and runs an epoch to renew the statistics.
    torch.manual_seed(0)
    masked, plain = pair(nn.BatchNorm1d, momentum=None)
    for _ in range(3):
        values = torch.randn(4, 3, 7)
        masked(values, torch.full((4,), 7))
        plain(values)
    torch.testing.assert_close(dict(masked.named_buffers()), dict(plain.named_buffers()))


def test_bfloat16_statistics_are_float32() -> None:
    torch.manual_seed(0)
    values = (torch.randn(8, 2, 400) + 30).bfloat16()
    masked = MaskedBatchNorm(2, momentum=1.0)
    assert masked(values, torch.full((8,), 400)).dtype == torch.bfloat16
    torch.testing.assert_close(masked.running_mean, values.float().mean((0, 2)))
    torch.testing.assert_close(masked.running_var, values.float().var((0, 2)))


def test_frames_are_asked_for() -> None:
    with pytest.raises(ValueError, match="shape"):
        MaskedBatchNorm(3)(torch.zeros(2, 3), torch.ones(2))

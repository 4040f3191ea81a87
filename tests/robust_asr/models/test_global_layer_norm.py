"""Global layer normalisation against torch's, without the padding, and its gradient against finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.models.global_layer_norm import GlobalLayerNorm

LENGTHS = (9, 5)


def example(offset: float = 0.0) -> tuple[GlobalLayerNorm, Tensor, Tensor]:
    torch.manual_seed(0)
    norm = GlobalLayerNorm(4).double()
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    valid = (torch.arange(9) < torch.tensor(LENGTHS)[:, None])[:, None].double()
    return norm, torch.randn(2, 4, 9, dtype=torch.float64) + offset, valid


def test_it_is_group_norm_of_the_valid_frames() -> None:
    norm, values, valid = example()
    found = norm(values, valid)
    for row, size in enumerate(LENGTHS):
        expected = torch.nn.functional.group_norm(values[row : row + 1, :, :size], 1, norm.weight, norm.bias, 1e-8)
        torch.testing.assert_close(found[row, :, :size], expected[0], rtol=1e-12, atol=1e-14)
        assert not found[row, :, size:].any()


def test_gradients_are_those_of_finite_differences() -> None:
    norm, values, valid = example()
    inputs = (values.requires_grad_(), norm.weight, norm.bias)
    assert torch.autograd.gradcheck(
        lambda values, weight, bias: torch.func.functional_call(
            norm, {"weight": weight, "bias": bias}, (values, valid)
        ),
        inputs,
    )


def test_a_mean_far_from_zero_costs_little_precision_in_float32() -> None:
    norm, values, valid = example(offset=100.0)
    gradient, found = torch.randn_like(values), []
    # Rounding the values themselves is not what is looked at.
    for leaf in (values.float().double(), values.float()):
        output = norm.to(leaf.dtype)(leaf.requires_grad_(), valid.to(leaf.dtype))
        to_leaf, *to_parameters = torch.autograd.grad(output, (leaf, norm.weight, norm.bias), gradient.to(leaf.dtype))
        found.append([value.double() for value in (output, to_leaf, *to_parameters)])
    for expected, single in zip(*found, strict=True):
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_computed_in_float32() -> None:
    norm, values, valid = example()
    found = norm.float()(values.bfloat16(), valid.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, norm(values.bfloat16().float(), valid.float()).bfloat16())

"""PReLU against torch's."""

from __future__ import annotations

import pytest
import torch

from robust_asr.models.prelu import PReLU


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.25, 0.9, 1.5])
def test_values_and_gradients_are_torchs(slope: float) -> None:
    torch.manual_seed(0)
    own, other = PReLU().double(), torch.nn.PReLU().double()
    values = torch.cat([torch.randn(2, 3, 7, dtype=torch.float64), torch.zeros(2, 3, 1, dtype=torch.float64)], 2)
    gradient, found = torch.randn_like(values), []
    for module in (own, other):
        module.weight.data.fill_(slope)
        leaf = values.clone().requires_grad_()
        output = module(leaf)
        found.append((output, *torch.autograd.grad(output, (leaf, module.weight), gradient)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-14, atol=1e-14)


def test_half_precision_stays() -> None:
    output = PReLU()(torch.randn(2, 3, dtype=torch.bfloat16).requires_grad_())
    assert output.dtype == torch.bfloat16
    output.sum().backward()


def test_autocast_changes_neither_the_values_nor_their_type() -> None:
    module, values = PReLU(), torch.randn(2, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(values)
    assert output.dtype == torch.float32 and torch.equal(output, module(values))
    output.sum().backward()
    assert values.grad.dtype == torch.float32

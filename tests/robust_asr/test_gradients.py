"""What ``frozen_for_attack`` keeps and restores is tested on whole recognisers in ``test_contract``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robust_asr.gradients import frozen_for_attack, input_gradient, straight_through


def test_gradient_of_a_known_function() -> None:
    waveforms = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    losses, gradient = input_gradient(lambda x: (x**2).sum(1), waveforms)
    assert losses.tolist() == [5.0, 25.0] and gradient.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert not losses.requires_grad and not gradient.requires_grad and not waveforms.requires_grad


def test_works_where_gradients_are_off_and_leaves_them_off() -> None:
    waveforms = torch.ones(1, 2, requires_grad=True)
    with torch.no_grad():
        _, gradient = input_gradient(lambda x: (3 * x).sum(1), waveforms)
        assert not torch.is_grad_enabled()
    assert gradient.tolist() == [[3.0, 3.0]] and waveforms.grad is None


def test_parameters_get_no_gradient() -> None:
    layer = nn.Linear(2, 1)
    input_gradient(lambda x: layer(x)[:, 0], torch.ones(1, 2))
    assert layer.weight.grad is None


def test_attack_mode_by_module() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), nn.LSTM(4, 4, num_layers=2, dropout=0.5))
    model[0].eval()
    with frozen_for_attack(model) as frozen:
        assert frozen is model
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [module.training for module in model] == [False, True, True]
    assert all(parameter.requires_grad for parameter in model.parameters()) and model[2].dropout == 0.5


def test_attack_mode_is_float32_inside_autocast() -> None:
    model, waveforms = nn.Linear(3, 3), torch.ones(1, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with frozen_for_attack(model):
            assert model(waveforms).dtype == torch.float32
        assert model(waveforms).dtype == torch.bfloat16


def test_attack_mode_nests() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    with frozen_for_attack(model):
        with frozen_for_attack(model):
            pass
        assert not model[0].training
    assert model[0].training


def test_straight_through_is_exact_forwards_and_the_identity_backwards() -> None:
    # Of a size at which x + (value - x) would round.
    waveforms = (1000 * torch.randn(2, 500, generator=torch.Generator().manual_seed(0))).requires_grad_(True)
    value = (waveforms / 1e5).sin()
    weights = torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    passed = straight_through(value, waveforms)
    assert torch.equal(passed, value)
    (gradient,) = torch.autograd.grad((weights * passed**2).sum(), waveforms)
    assert torch.equal(gradient, 2 * weights * value)


def test_straight_through_needs_equal_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4\) samples became \(1, 2\)"):
        straight_through(torch.zeros(1, 2), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (torch.no_grad()(lambda x: x.sum(1)), "no gradient of the loss reaches the audio"),
        (lambda x: torch.from_numpy(x.detach().numpy()).sum(1), "without torch.no_grad, detach or numpy"),
        (lambda x: torch.from_numpy(x.numpy()).sum(1), "it converts the audio to numpy"),
        (lambda x: torch.nn.Linear(2, 1)(x.detach())[:, 0], "no gradient of the loss reaches the audio"),
    ],
)
def test_a_loss_that_does_not_depend_on_the_audio_is_named(loss: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        input_gradient(loss, torch.ones(3, 2))


def test_inference_mode_is_named_and_its_tensors_are_taken() -> None:
    with torch.inference_mode():
        waveforms = torch.ones(3, 2)
        with pytest.raises(ValueError, match=r"inference_mode forbids: use torch\.no_grad"):
            input_gradient(lambda x: x.sum(1), waveforms)
    assert torch.equal(input_gradient(lambda x: x.sum(1), waveforms)[1], torch.ones(3, 2))

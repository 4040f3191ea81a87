"""The state that an optimiser itself has written is never refused; what was changed in it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.callbacks.optimizer_state import wrong_optimizer_state

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adafactor": {},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "ASGD": {},
    "LBFGS": {},
    "NAdam": {},
    "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "SGD": {"momentum": 0.9},
}


def stepped(name: str) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """A fresh optimiser, and the state of another one after two steps, in which a frozen parameter has no part."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    model[1].bias.requires_grad_(False)

    def loss() -> torch.Tensor:
        model.zero_grad()
        total = model(torch.ones(2, 3)).square().sum()
        total.backward()
        return total

    fresh, used = (getattr(torch.optim, name)(model.parameters(), lr=0.1, **OPTIMIZERS[name]) for _ in range(2))
    for _ in range(2):
        used.step(loss)
    return fresh, used.state_dict()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_honest_state_is_taken(name):
    fresh, state = stepped(name)
    assert list(wrong_optimizer_state(fresh, state)) == []
    assert not any(parameter.is_meta for group in fresh.param_groups for parameter in group["params"])
    fresh.load_state_dict(state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_state_has_a_tensor_larger_than_all_parameters(name):
    fresh, state = stepped(name)
    first = next(key for key, value in state["state"][0].items() if isinstance(value, torch.Tensor))
    state["state"][0][first] = torch.zeros(42)
    (fault,) = wrong_optimizer_state(fresh, state)
    assert fault.startswith(f"state[0].{first} must ")


def test_an_option_that_was_switched_off_leaves_its_tensors():
    _, state = stepped("Adam")
    fresh = torch.optim.Adam(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)).parameters())
    assert "max_exp_avg_sq" in state["state"][0] and list(wrong_optimizer_state(fresh, state)) == []

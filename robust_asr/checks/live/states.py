"""Live checks of the model's state: an attack leaves the model unchanged and attacks it in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robust_asr.checks.verdicts import Check, Question, some

UNCHANGED = Question(
    "the attack leaves the model as it was",
    "Every measurement after the attack is made on a changed model.",
)
EVALUATING = Question(
    "the model is in evaluation mode during the attack",
    "The attack is aimed at a model with dropout or with the batch's own statistics, but the scored model has neither.",
)
State = dict[str, object]


def state_of(model: nn.Module) -> State:
    """Everything that an attack could change: weights, buffers, gradients, ``requires_grad``, modes, dropout rates."""
    state: State = {}
    for name, parameter in model.named_parameters():
        state |= {name: _kept(parameter), f"{name}, its gradient": _kept(parameter.grad)}
        state[f"{name}, whether it wants a gradient"] = parameter.requires_grad
    state |= {name: _kept(buffer) for name, buffer in model.named_buffers()}
    for name, module in model.named_modules():
        state[f"{name or 'the model'}, its mode"] = module.training
        if isinstance(module, nn.RNNBase | nn.modules.dropout._DropoutNd):
            state[f"{name}, its dropout"] = module.dropout if isinstance(module, nn.RNNBase) else module.p
    return state


def check_state(before: State, model: nn.Module) -> Check:
    """Compare the model with its state ``before``, bit by bit. New values, such as a cache, are accepted."""
    after = state_of(model)
    changed = [name for name, value in before.items() if name not in after or not _same(value, after[name])]
    evidence = f"{len(changed)} of {len(before)} values changed" + (f": {some(changed)}" if changed else "")
    return UNCHANGED.verdict(not changed, evidence, value=len(changed))


@contextmanager
def watched_modes(model: nn.Module) -> Iterator[set[str]]:
    """Collects the names of the modules that run in training mode inside the ``with`` block.

    An RNN without dropout does not count: cuDNN needs it in training mode for gradients, and it computes the same in both modes.
    """
    training: set[str] = set()
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, arguments: object) -> None:
        if module.training and not (isinstance(module, nn.RNNBase) and not module.dropout):
            training.add(f"{names[module]} ({type(module).__name__})")

    hooks = [module.register_forward_pre_hook(look) for module in names]
    try:
        yield training
    finally:
        for hook in hooks:
            hook.remove()


def check_modes(training: set[str]) -> Check:
    evidence = f"{len(training)} modules ran in training mode" + (f": {some(sorted(training))}" if training else "")
    return EVALUATING.verdict(not training, evidence, value=len(training))


def _kept(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()


def _same(before: object, after: object) -> bool:
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return type(before) is type(after) and before == after
    alike = before.shape == after.shape and before.dtype == after.dtype and before.device == after.device
    return alike and torch.equal(_bits(before), _bits(after))


def _bits(value: Tensor) -> Tensor:
    """The bytes of a tensor: comparing bytes finds equal NaNs equal."""
    return value.contiguous().reshape(-1).view(torch.uint8)

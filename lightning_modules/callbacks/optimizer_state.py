"""The tensors that an optimiser keeps for each parameter, compared with those that it makes itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[int, dict[str, Any]]


def wrong_optimizer_state(optimizer: Optimizer, saved: Mapping[str, Any]) -> Iterator[str]:
    """What a saved state holds that a fresh optimiser of this class does not make for these parameters.

    Without this, torch keeps what is too much, and fails in the middle of an epoch at what is missing or of another shape.

    Args:
        saved: the state of the optimiser in the checkpoint, with as many groups as the optimiser has.
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    numbers = [group["params"] for group in saved["param_groups"]]
    if not all(isinstance(group, list) for group in numbers) or list(map(len, numbers)) != sizes:
        yield f"param_groups must list {' and '.join(map(str, sizes))} parameters"
        return
    numbers = list(chain.from_iterable(numbers))
    if not all(type(number) is int for number in numbers) or len(set(numbers)) != len(numbers):
        yield "param_groups must number each parameter once"
        return
    parameters = dict(
        zip(numbers, chain.from_iterable(group["params"] for group in optimizer.param_groups), strict=True)
    )
    made = _first_step(optimizer, saved["param_groups"], numbers)
    largest = sum(parameter.numel() for parameter in parameters.values())
    for number, entries in saved["state"].items():
        if number not in parameters:
            yield f"state[{number!r}] belongs to no parameter; there are {len(parameters)}"
        elif not isinstance(entries, dict):
            yield f"state[{number}] must be a dict, found a {type(entries).__name__}"
        else:
            wanted = made.get(number) if made is not None else None
            yield from _wrong_entries(f"state[{number}]", entries, wanted, largest)


def _wrong_entries(
    field: str, entries: Mapping[str, Any], wanted: Mapping[str, Any] | None, largest: int
) -> Iterator[str]:
    for name in entries if wanted is None else {**wanted, **entries}:
        value = entries.get(name)
        if wanted is not None and name not in wanted:
            yield f"{field}.{name} is nothing that the optimiser keeps"
        elif wanted is not None and _kind(value) != _kind(wanted[name]):
            yield f"{field}.{name} must be {_kind(wanted[name])}, found {_kind(value)}"
        elif wanted is None and isinstance(value, Tensor) and value.numel() > largest:
            yield f"{field}.{name} must have at most the {largest} elements of all parameters, found {value.numel()}"
        elif isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            yield f"{field}.{name} must be finite"
        elif name == "step" and bool((torch.as_tensor(value) < 0).any()):
            yield f"{field}.step must be 0 or more, found {float(value):g}"


def _first_step(optimizer: Optimizer, saved_groups: list[dict[str, Any]], numbers: list[int]) -> State | None:
    """What the optimiser keeps of each parameter after a step under the saved options, made without memory.

    None where its step reads values, which tensors without memory do not have.
    """
    if optimizer.state:
        # Some optimisers make their tensors in their constructor.
        kept = [optimizer.state.get(tensor, {}) for group in optimizer.param_groups for tensor in group["params"]]
        return dict(zip(numbers, kept, strict=True))
    trial = copy.copy(optimizer)
    trial.state = type(optimizer.state)(dict)
    trial.param_groups = []
    for group, saved in zip(optimizer.param_groups, saved_groups, strict=True):
        parameters = [torch.empty_like(tensor, device="meta").requires_grad_() for tensor in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        options = {**saved, "params": parameters}
        # The kernels for lists of tensors, and those that fuse all operations, need a device.
        options |= {name: False for name in ("foreach", "fused") if name in group}
        trial.param_groups.append(options)
    try:
        type(optimizer).step(trial)
    except Exception:
        return None
    tensors = chain.from_iterable(group["params"] for group in trial.param_groups)
    return {number: trial.state.get(tensor, {}) for number, tensor in zip(numbers, tensors, strict=True)}


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "a number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__

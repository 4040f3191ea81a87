"""A trial of a stranger's description: the module is built without memory, and what it would take is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from robust_asr.storage import trust

T = TypeVar("T", bound=nn.Module)

# What a constructor may take besides the tensors in the file: filters, windows, positions.
_TABLE_BYTES = 2**27
# A constructor may make a tensor, change its type or layout, and keep the result.
_COPIES = 4
# Numbers of layers, channels, samples or hertz are at most this, or the number of bytes in the file.
_LARGEST_NUMBER = 2**24


def trial_build(description: dict[str, Any], state: Mapping[str, Tensor], *, expected: type[T], field: str) -> T:
    """Build the described module on the meta device, which needs no memory.

    The tensors in the file are the truth: a description that asks for more bytes, layers or parameters than they account for
    is refused before anything is allocated.

    Errors: ValueError says what the description asks for.
    """
    held = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    _check_numbers(description, largest=max(held, _LARGEST_NUMBER), field=field)
    try:
        with torch.device("meta"), _counted_layers(len(state)), _CountedBytes(_COPIES * held + _TABLE_BYTES):
            return trust.build(description, expected=expected, field=field)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{field}: {description['class_path']} cannot be built without memory ({error}); its constructor "
            "must compute fixed tensors under torch.device('cpu')"
        ) from error


def _check_numbers(value: Any, *, largest: int, field: str) -> None:
    """Python can be made to repeat something this often, or to make a list of this length, before any tensor is made."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_numbers(item, largest=largest, field=field if key == "init_args" else f"{field}.{key}")
    elif isinstance(value, int | float) and value > largest:
        raise ValueError(
            f"{field}: {str(value)[:20]} is more than the tensors in the file account for, which is {largest}"
        )


@contextmanager
def _counted_layers(num_tensors: int) -> Iterator[None]:
    """Refuse a description that asks for an endless number of layers."""
    # A layer may register a parameter and then replace it, and holds modules without parameters, such as activations.
    limits = {"parameters": 2 * num_tensors + 100, "modules": 20 * num_tensors + 1000}
    counts = dict.fromkeys(limits, 0)

    def counting(kind: str) -> Callable[..., None]:
        def count(*registered: object) -> None:
            counts[kind] += 1
            if counts[kind] > limits[kind]:
                raise ValueError(
                    f"checkpoint of another architecture: it describes more {kind} than the {num_tensors} tensors in the "
                    "file account for"
                )

        return count

    handles = [
        register_module_parameter_registration_hook(counting("parameters")),
        register_module_module_registration_hook(counting("modules")),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _CountedBytes(TorchDispatchMode):
    """Add up the sizes of all tensors that are made, and refuse the tensor that is too much before it is made.

    A constructor may compute on the CPU, so each operation is done on the meta device first.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        arguments, options = tree_map(_without_memory, (args, kwargs or {}))
        try:
            made = func(*arguments, **options)
        except (RuntimeError, NotImplementedError):
            # The result depends on values, such as the number in a tensor.
            made = None
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((arguments, options))}
        for tensor in _tensors(made):
            if tensor.untyped_storage()._cdata not in given:
                self._total += tensor.numel() * tensor.element_size()
        if self._total > self._limit:
            raise ValueError(
                f"checkpoint of another architecture: it describes tensors of more than {self._total / 1e9:.2f} GB, the file "
                f"accounts for {self._limit / 1e9:.2f} GB"
            )
        return func(*args, **(kwargs or {}))


def _without_memory(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]

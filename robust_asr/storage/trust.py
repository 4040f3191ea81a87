"""Which code a stranger's file may name, and how an object is built from a description in one."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import math
import sys
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")

# A name, and everything below it. A class must be allowed by the name given and by the name of where it is defined, so
# a module that an allowed one happens to import stays out of reach. Not here: plugins.io (would replace the checked
# checkpoint files), sharding strategies (write files of their own), loggers that need an account elsewhere.
_ALLOWED = frozenset(
    {
        "robust_asr",
        "lightning_modules",
        "datamodules",
        "torch.optim",
        "pytorch_lightning.callbacks",
        "pytorch_lightning.cli.ReduceLROnPlateau",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.loggers.TensorBoardLogger",
        "pytorch_lightning.loggers.WandbLogger",
        "pytorch_lightning.loggers.csv_logs",
        "pytorch_lightning.loggers.tensorboard",
        "pytorch_lightning.loggers.wandb",
        "pytorch_lightning.plugins.environments",
        "pytorch_lightning.plugins.precision",
        "lightning_fabric.plugins.environments",
        "pytorch_lightning.profilers",
        "pytorch_lightning.strategies.DDPStrategy",
        "pytorch_lightning.strategies.SingleDeviceStrategy",
        "pytorch_lightning.strategies.ddp",
        "pytorch_lightning.strategies.single_device",
    }
)
FUNCTIONS = frozenset({"robust_asr.checkpoint.load", "robust_asr.checkpoint.load_defense"})
_SUMMARY = "robust_asr, lightning_modules, datamodules, torch.optim and Lightning's callbacks, loggers and strategies"

_opened: set[str] = set()


def allow_module(name: str) -> None:
    """Let files name the classes of one more package: the user's own, given on the command line and nowhere else."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"allow_module takes the name of a package such as my_package, got {name!r}")
    if name.split(".")[0] in sys.stdlib_module_names | {"torch", "jsonargparse", "pytorch_lightning", "lightning"}:
        raise ValueError(f"allow_module opens a package of your own; {name!r} belongs to a library")
    _opened.add(name)


def check_name(name: str, *, field: str = "class_path") -> None:
    """ValueError unless the allowlist covers a dotted name. Nothing is imported."""
    if not isinstance(name, str) or "." not in name or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{field}: {name!r} is not the dotted name of a class")
    parts = name.split(".")
    if any(part.startswith("__") for part in parts):
        raise ValueError(f"{field}: {name!r} is not the dotted name of a class")
    if not any(".".join(parts[:length]) in _ALLOWED | _opened for length in range(1, len(parts) + 1)):
        raise ValueError(
            f"{field}: {name!r} is not on the list of what a file may name ({_SUMMARY}); "
            f"--allow_module {parts[0]} opens a package of your own"
        )


def check_object(found: object, name: str, *, field: str = "class_path") -> None:
    """ValueError unless what a name led to is a class defined below the allowlist, or a function that is listed."""
    defined = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    if not isinstance(found, type) and defined not in FUNCTIONS:
        raise ValueError(f"{field}: {name!r} is not a class")
    check_name(defined, field=field)


def resolve(name: str, *, field: str = "class_path") -> type:
    """The class of a dotted name; the allowlist is asked before anything is imported."""
    check_name(name, field=field)
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{field}: {name!r} does not exist ({error})") from error
    check_object(found, name, field=field)
    if not isinstance(found, type):
        raise ValueError(f"{field}: {name!r} is not a class")
    return found


def build(description: object, *, expected: type[T] | tuple[type, ...], field: str = "description") -> T:
    """The object of a description: the inverse of ``robust_asr.storage.describe.describe``.

    Errors: ValueError names the field that is outside the allowlist, of another type or unknown.
    """
    if not isinstance(description, dict) or set(description) != {"class_path", "init_args"}:
        raise ValueError(f"{field} must hold class_path and init_args, got {_short(description)}")
    kind, arguments = resolve(description["class_path"], field=f"{field}.class_path"), description["init_args"]
    if not issubclass(kind, expected) or inspect.isabstract(kind):
        raise ValueError(f"{field}.class_path: {description['class_path']!r} is not a {_name(expected)}")
    parameters = inspect.signature(kind).parameters
    if not isinstance(arguments, dict) or not arguments.keys() <= parameters.keys():
        raise ValueError(f"{field}.init_args must be among {sorted(parameters)}, got {_short(arguments)}")
    hints = typing.get_type_hints(kind.__init__)
    values = {key: _convert(value, hints.get(key), f"{field}.{key}") for key, value in arguments.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field}: {error}") from error


def _convert(value: object, hint: Any, field: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if isinstance(value, dict) and "class_path" in value:
        classes = tuple(option for option in options if isinstance(option, type) and not _is_plain_type(option))
        return build(value, expected=classes, field=field)
    for option in options:
        if _fits(value, option):
            items = typing.get_args(option)
            if isinstance(value, list) and items and typing.get_origin(option) is not typing.Literal:
                values = [_convert(item, items[0], f"{field}[{index}]") for index, item in enumerate(value)]
                return tuple(values) if typing.get_origin(option) is tuple else values
            if isinstance(value, dict) and items:
                return {key: _convert(item, items[1], f"{field}.{key}") for key, item in value.items()}
            return tuple(value) if option is tuple else value
    raise ValueError(f"{field}: {_short(value)} is not of type {_name(hint)}")


def _fits(value: object, hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint))
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, list):
        return origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
    if isinstance(value, dict):
        return origin in (dict, collections.abc.Mapping)
    return type(value) is origin or (value is None and origin is None) or (origin is float and type(value) is int)


def _is_plain_type(kind: type) -> bool:
    return kind.__module__ == "builtins"


def _name(hint: Any) -> str:
    if isinstance(hint, tuple):
        return " or ".join(map(_name, hint)) or "nested object here"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

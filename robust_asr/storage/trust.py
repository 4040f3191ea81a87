"""The allowlist of classes that a file from a stranger may name, and building objects from descriptions in such files."""

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

# Each entry allows a dotted name and every name below it. A class must be allowed twice: by the name in the file and by the name
# of the module that defines it, so a file cannot reach a module that an allowed module imports. Left out on purpose: plugins.io
# (would replace the checked checkpoint files), sharding strategies (write files of their own).
_ALLOWED = frozenset(
    {
        "robust_asr",
        "lightning_modules",
        "datamodules",
        "torch.optim",
        "pytorch_lightning.cli.ReduceLROnPlateau",
        "pytorch_lightning.plugins.environments",
        "pytorch_lightning.plugins.precision",
        "lightning_fabric.plugins.environments",
        "pytorch_lightning.strategies.DDPStrategy",
        "pytorch_lightning.strategies.SingleDeviceStrategy",
        "pytorch_lightning.strategies.ddp",
        "pytorch_lightning.strategies.single_device",
    }
)
# Single classes by the module that defines each. Left out on purpose: loggers that send to a server (W&B has
# lightning_modules.loggers.RunWandbLogger), callbacks that take functions or write files wherever they are told.
LIGHTNING = frozenset(
    f"pytorch_lightning.{name}"
    for name in (
        "callbacks.device_stats_monitor.DeviceStatsMonitor",
        "callbacks.early_stopping.EarlyStopping",
        "callbacks.gradient_accumulation_scheduler.GradientAccumulationScheduler",
        "callbacks.lr_monitor.LearningRateMonitor",
        "callbacks.model_checkpoint.ModelCheckpoint",
        "callbacks.model_summary.ModelSummary",
        "callbacks.progress.rich_progress.RichProgressBar",
        "callbacks.progress.rich_progress.RichProgressBarTheme",
        "callbacks.progress.tqdm_progress.TQDMProgressBar",
        "callbacks.rich_model_summary.RichModelSummary",
        "callbacks.stochastic_weight_avg.StochasticWeightAveraging",
        "callbacks.timer.Timer",
        "callbacks.weight_averaging.EMAWeightAveraging",
        "callbacks.weight_averaging.WeightAveraging",
        "loggers.csv_logs.CSVLogger",
        "loggers.tensorboard.TensorBoardLogger",
        "profilers.advanced.AdvancedProfiler",
        "profilers.base.PassThroughProfiler",
        "profilers.pytorch.PyTorchProfiler",
        "profilers.simple.SimpleProfiler",
    )
)
FUNCTIONS = frozenset(
    {"robust_asr.checkpoint.load", "robust_asr.checkpoint.load_defense", "robust_asr.models.wav2vec2.load_bundle"}
)
_SUMMARY = (
    "robust_asr, lightning_modules, datamodules, torch.optim, and single callbacks, loggers, profilers and "
    "strategies of Lightning"
)


def _spellings(defined: str) -> list[str]:
    """A class by its module, and by the packages around it, which import it."""
    *packages, kind = defined.split(".")
    return [".".join([*packages[:length], kind]) for length in range(2, len(packages) + 1)]


_SINGLE = frozenset(name for defined in LIGHTNING for name in _spellings(defined))

_opened: set[str] = set()


def allow_module(name: str) -> None:
    """Add a package of the user's own to the allowlist. Only the command line may call this, never a file."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"allow_module takes the name of a package such as my_package, got {name!r}")
    if name.split(".")[0] in sys.stdlib_module_names | {"torch", "jsonargparse", "pytorch_lightning", "lightning"}:
        raise ValueError(f"allow_module opens a package of your own; {name!r} belongs to a library")
    _opened.add(name)


def check_name(name: str, *, field: str = "class_path") -> None:
    """Raise a ValueError unless the allowlist covers a dotted name. Nothing is imported."""
    if not isinstance(name, str) or "." not in name or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{field}: {name!r} is not the dotted name of a class")
    parts = name.split(".")
    if any(part.startswith("__") for part in parts):
        raise ValueError(f"{field}: {name!r} is not the dotted name of a class")
    below = any(".".join(parts[:length]) in _ALLOWED | _opened for length in range(1, len(parts) + 1))
    if not below and name not in _SINGLE:
        raise ValueError(
            f"{field}: {name!r} is not on the list of names that a file may use ({_SUMMARY}); "
            f"--allow_module {parts[0]} opens a package of your own"
        )


def check_object(target: object, name: str, *, field: str = "class_path") -> None:
    """Raise a ValueError unless the object behind a name is a class that is defined below the allowlist, or a listed function."""
    defined = f"{getattr(target, '__module__', None)}.{getattr(target, '__qualname__', None)}"
    if not isinstance(target, type) and defined not in FUNCTIONS:
        raise ValueError(f"{field}: {name!r} is not a class")
    check_name(defined, field=field)


def resolve(name: str, *, field: str = "class_path") -> type:
    """Import the class of a dotted name; the allowlist is checked before anything is imported."""
    check_name(name, field=field)
    module, _, attribute = name.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{field}: {name!r} does not exist ({error})") from error
    check_object(target, name, field=field)
    if not isinstance(target, type):
        raise ValueError(f"{field}: {name!r} is not a class")
    return target


def build(description: object, *, expected: type[T] | tuple[type, ...], field: str = "description") -> T:
    """Build the object of a description: the inverse of ``robust_asr.storage.describe.describe``.

    Errors: ValueError names a field that is outside the allowlist, has the wrong type or is unknown.
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
    except (TypeError, ValueError, ArithmeticError) as error:
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

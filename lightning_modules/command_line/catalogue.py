"""Short names of classes: the public ones of the rooms below, found in their source, and a few of torch and Lightning."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from robust_asr.storage import trust

# A package, and everything below it. What recipes name lives here; a class of another room is named by its full path.
_ROOMS = (
    "robust_asr.attacks",
    "robust_asr.defenses",
    "robust_asr.lfmmi",
    "robust_asr.models",
    "robust_asr.schedules",
    "robust_asr.search",
    "robust_asr.text",
    "robust_asr.threat",
    "lightning_modules",
)
_NOT_HERE = "lightning_modules.command_line"
_OTHERS = {
    "datamodules": "AttackPairs Speech Synthetic Transcripts",
    "torch.optim": "Adam AdamW SGD",
    "torch.optim.lr_scheduler": "CosineAnnealingLR ExponentialLR OneCycleLR",
    "pytorch_lightning.cli": "ReduceLROnPlateau",
    "pytorch_lightning.callbacks": "EMAWeightAveraging EarlyStopping LearningRateMonitor",
    "pytorch_lightning.strategies": "DDPStrategy",
}
_ROOT = Path(__file__).resolve().parents[2]
_CLASS = re.compile(r"^class ([A-Z]\w*)", re.MULTILINE)


def is_name(text: object) -> bool:
    """Whether a key can be the short name of a class, or is that of a function that may be named."""
    return isinstance(text, str) and (text in _table() or re.fullmatch(r"[A-Z][A-Za-z0-9]*", text) is not None)


def known(name: str) -> bool:
    return name in _table()


def class_path(name: str, where: object) -> str:
    """The full path of a short name. Errors: ValueError names the nearest names, or all that it could mean."""
    paths = _table().get(name, [])
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise ValueError(f"{where}: {name} may be {' or '.join(paths)}; give the class_path")
    hint = nearest(name) or "; of your own classes give the class_path"
    raise ValueError(f"{where}: {name} is the name of no class here{hint}")


def nearest(name: str) -> str:
    near = difflib.get_close_matches(name, _table(), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


@cache
def parameters(path: str) -> dict[str, Any] | None:
    """What the constructor of a class of the catalogue takes, in order, with its types; None where it takes any name."""
    found = _found(path)
    every = inspect.signature(found).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in every):
        return None
    # The fields of a data class have the types of the module that each was written in.
    holder = found.__init__ if isinstance(found, type) and not is_dataclass(found) else found
    try:
        hints = typing.get_type_hints(holder) if _is_own(path) else {}
    except NameError:
        # A type that its module imports for type checkers only; jsonargparse, which reads the source, judges the values.
        hints = {}
    return {one.name: hints.get(one.name, Any) for one in every}


def first_parameter(path: str, where: object) -> str:
    """What ``{Linf: 0.001}`` gives without naming it. Errors: ValueError for a class whose first argument is not the recipe's."""
    names = list(inspect.signature(_found(path)).parameters)
    if not names or not _is_own(path):
        raise ValueError(f"{where}: {path.rsplit('.', 1)[-1]} takes named arguments only, as a map")
    return names[0]


def class_of(path: str) -> type | None:
    """The class of a full path of ours; None for what is none of ours, or no class."""
    if path not in _table().get(path.rsplit(".", 1)[-1], ()) or not _is_own(path):
        return None
    found = _found(path)
    return found if isinstance(found, type) else None


def _is_own(path: str) -> bool:
    return path.split(".")[0] not in ("torch", "pytorch_lightning")


@cache
def _found(path: str) -> Any:
    trust.check_name(path)
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    trust.check_object(found, path)
    return found


@cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for room in _ROOMS:
        base = _ROOT.joinpath(*room.split("."))
        for file in sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]:
            parts = file.relative_to(_ROOT).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not f"{module}.".startswith(f"{_NOT_HERE}."):
                for name in _CLASS.findall(file.read_text(encoding="utf-8")):
                    table.setdefault(name, []).append(f"{module}.{name}")
    for module, names in _OTHERS.items():
        for name in names.split():
            table.setdefault(name, []).append(f"{module}.{name}")
    for path in trust.FUNCTIONS:
        table.setdefault(path.rsplit(".", 1)[-1], []).append(path)
    return table

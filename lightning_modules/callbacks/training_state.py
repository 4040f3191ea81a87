"""The part of a checkpoint from which training goes on: what it must hold, so that no run starts over without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robust_asr.storage import sealed

_KINDS = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
}


def check_training_state(path: str, fit_loop: Mapping[str, Any]) -> None:
    """ValueError names what the training state of a checkpoint lacks or holds in its place.

    Lightning goes over what is missing: a run without the state of its loops would begin at epoch 0, with trained weights.

    Args:
        fit_loop: the state of a fresh trainer's loop, whose names and kinds the checkpoint must have.
    """
    content = sealed.read(path)
    faults = [*_wrong_kinds(content), *_wrong_optimizers(content)]
    if not faults:
        faults = list(_missing(content["loops"].get("fit_loop"), fit_loop, "loops.fit_loop"))
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{path}: cannot be trained on: {', '.join(faults[:3])}{more}")


def _wrong_kinds(content: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in _KINDS.items():
        value = content.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0):
            yield f"{name} must be a {kind.__name__}, found {_found(value)}"


def _wrong_optimizers(content: Mapping[str, Any]) -> Iterator[str]:
    states = content.get("optimizer_states")
    for index, state in enumerate(states if isinstance(states, list) else ()):
        given = state if isinstance(state, dict) else {}
        for name, kind in (("state", dict), ("param_groups", list)):
            if not isinstance(given.get(name), kind):
                yield f"optimizer_states[{index}].{name} must be a {kind.__name__}, found {_found(given.get(name))}"


def _missing(saved: Any, fresh: Any, field: str) -> Iterator[str]:
    """Where a state has another form than that of a fresh trainer; what it holds besides is Lightning's to judge."""
    if isinstance(fresh, Mapping):
        if not isinstance(saved, Mapping):
            yield f"{field} must be a dict, found {_found(saved)}"
            return
        for name, value in fresh.items():
            yield from _missing(saved.get(name), value, f"{field}.{name}")
    elif isinstance(fresh, int) and (type(saved) is not type(fresh) or saved < 0):
        yield f"{field} must be a {type(fresh).__name__}, found {_found(saved)}"


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    return str(value) if isinstance(value, int) else f"a {type(value).__name__}"

"""A resumed run goes on from the state of its checkpoint under the settings of its present configuration."""

from __future__ import annotations

import inspect
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_modules.callbacks.optimizer_state import wrong_optimizer_state
from robust_asr.text.terminal import say

KEY = "configured"

# What schedules add to the groups of an optimiser.
_OF_SCHEDULES = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}
_PROGRESS_OF_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")


class ResumedSettings(Callback):
    """Settings are never taken from a checkpoint, which otherwise holds them beside its state and wins over the configuration.

    The learning rate is that of the present schedule at the step of the checkpoint, as if the schedule had been the present one
    from the beginning; ``ReduceLROnPlateau``, whose steps follow from what was measured, keeps its reductions. The other options of
    an optimiser, and the arguments of a callback that its state repeats (such as ``patience``), are the present ones. A best score
    counts where the file that it belongs to is in the present run folder, wherever that folder was before.

    Args:
        restart_epoch: the epoch in the middle of which the checkpoint was written begins anew.

    Errors: ValueError names the setting that a run cannot change in the middle.
    """

    def __init__(self, *, restart_epoch: bool = False) -> None:
        self.restart_epoch = restart_epoch
        self._checkpoint: dict[str, Any] | None = None
        self._configured: dict[str, Any] = {}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        self._checkpoint = checkpoint
        if self.restart_epoch:
            _restart_epoch(trainer, checkpoint)
        states = checkpoint["callbacks"]
        for callback in trainer.callbacks:
            state = states.get(callback.state_key)
            if isinstance(state, dict):
                if isinstance(callback, ModelCheckpoint):
                    state = _moved(state, callback)
                states[callback.state_key] = _with_present_arguments(callback, state)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Optimisers and schedules are new here, and Lightning loads their states after this hook.
        self._configured = {
            "optimizers": [
                {"class": type(optimizer).__name__, "lr": [float(group["lr"]) for group in optimizer.param_groups]}
                for optimizer in trainer.optimizers
            ],
            "intervals": [config.interval for config in trainer.lr_scheduler_configs],
        }
        if self._checkpoint is None:
            return
        configured = self._checkpoint.get(KEY) or {}
        states = self._checkpoint.get("optimizer_states") or []
        schedules = self._checkpoint.get("lr_schedulers") or []
        _check_kinds(trainer, states, schedules, configured)
        for index, config in enumerate(trainer.lr_scheduler_configs):
            schedules[index] = _gone_on(config.scheduler, schedules[index], states, configured, trainer.optimizers)
        for optimizer, state in zip(trainer.optimizers, states, strict=True):
            _take_present_options(optimizer, state)
        self._checkpoint = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[KEY] = self._configured


def _restart_epoch(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    if epochs["started"] == epochs["processed"] or batches["is_last_batch"]:
        return
    _say(f"epoch {epochs['processed']} begins anew: {batches['current']['processed']} batches of it were done")
    total = batches["total"]
    if total["completed"] < total["processed"]:
        # Lightning counts the batch of the checkpoint as completed, and its step as made, only when it goes on within the epoch.
        total["completed"] = total["processed"]
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    batches["current"] = dict.fromkeys(batches["current"], 0)
    if hasattr(trainer.datamodule, "restart_epoch"):
        trainer.datamodule.restart_epoch()


def _with_present_arguments(callback: Callback, state: dict[str, Any]) -> dict[str, Any]:
    arguments = inspect.signature(type(callback).__init__).parameters
    present = {name: getattr(callback, name) for name in state if name in arguments and hasattr(callback, name)}
    return state | present


def _moved(state: dict[str, Any], callback: ModelCheckpoint) -> dict[str, Any]:
    """The state of a ModelCheckpoint whose files are in its folder of now; without scores whose files are not."""
    folder = Path(callback.dirpath)

    def here(path: Any) -> str:
        return str(folder / Path(str(path)).name) if path else ""

    best = {here(path): score for path, score in (state.get("best_k_models") or {}).items()}
    if all(Path(path).is_file() for path in [*best, here(state.get("best_model_path"))] if path):
        paths = {name: here(state.get(name)) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        return state | paths | {"best_k_models": best}
    _say(
        f"{folder} does not hold the best checkpoint of the run that goes on: the next validation is the first to be compared"
    )
    return callback.state_dict()


def _check_kinds(trainer: pl.Trainer, states: list[Any], schedules: list[Any], configured: dict[str, Any]) -> None:
    """ValueError names the optimiser or schedule that is of another kind than the checkpoint's."""
    if len(states) != len(trainer.optimizers):
        raise ValueError(f"optimizer: the run has {len(states)} in its checkpoint and {len(trainer.optimizers)} now")
    for index, (optimizer, state) in enumerate(zip(trainer.optimizers, states, strict=True)):
        present = [set(group) - _OF_SCHEDULES for group in optimizer.param_groups]
        saved = [set(group) - _OF_SCHEDULES for group in state["param_groups"]]
        if len(present) != len(saved):
            raise ValueError(f"optimizer: the checkpoint has {len(saved)} param_groups, the run has {len(present)}")
        kinds = configured.get("optimizers") or []
        before = kinds[index]["class"] if index < len(kinds) else "another kind"
        if present != saved or before not in ("another kind", type(optimizer).__name__):
            raise ValueError(
                f"optimizer: the state of {before} in the checkpoint is none of {type(optimizer).__name__}; a run keeps its "
                "optimiser, start a new one to change it"
            )
        for group, group_before in zip(optimizer.param_groups, state["param_groups"], strict=True):
            if group.get("amsgrad") and not group_before.get("amsgrad"):
                raise ValueError("optimizer.init_args.amsgrad: cannot be switched on in the middle of a run")
        faults = list(islice(wrong_optimizer_state(optimizer, state), 4))
        if faults:
            more = ", and more" if len(faults) > 3 else ""
            raise ValueError(
                f"optimizer: optimizer_states[{index}].{f', optimizer_states[{index}].'.join(faults[:3])}{more}"
            )
    configs = trainer.lr_scheduler_configs
    if len(configs) > len(schedules):
        raise ValueError(
            "lr_scheduler: the run began without one, and a schedule has no place to go on from; leave it out"
        )
    for config, before in zip(configs, configured.get("intervals") or (), strict=False):
        if config.interval != before:
            raise ValueError(
                f"lr_interval: the schedule of the checkpoint counts each {before}, and a run keeps it; found {config.interval}"
            )


def _gone_on(
    scheduler: Any,
    saved: dict[str, Any],
    states: list[dict[str, Any]],
    configured: dict[str, Any],
    optimizers: list[Optimizer],
) -> dict[str, Any]:
    """The state of the present schedule at the place of the saved one; its optimiser gets the learning rate of that place."""
    if isinstance(scheduler, ReduceLROnPlateau):
        if "num_bad_epochs" not in saved:
            raise ValueError("lr_scheduler: ReduceLROnPlateau cannot go on from a schedule of another kind")
        _keep_reductions(scheduler, states, configured, optimizers)
        return scheduler.state_dict() | {name: saved[name] for name in _PROGRESS_OF_PLATEAU if name in saved}
    steps = _steps(saved)
    name = type(scheduler).__name__
    if steps is None or not isinstance(scheduler, LRScheduler) or "num_bad_epochs" in saved:
        raise ValueError(
            f"lr_scheduler: {name} cannot go on from the schedule of the checkpoint, which counts no steps"
        )
    with warnings.catch_warnings():
        # The optimiser has stepped, in the run that goes on.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)`")
        try:
            for _ in range(steps):
                scheduler.step()
        except ValueError as error:
            raise ValueError(
                f"lr_scheduler: {name} ends before step {steps}, where the run goes on ({error})"
            ) from error
    return scheduler.state_dict()


def _steps(state: dict[str, Any]) -> int | None:
    """How often a schedule has stepped; schedules of schedules may say so inside only."""
    steps = state.get("last_epoch")
    for inner in state.get("_schedulers") or ():
        steps = _steps(inner) if steps is None else steps
    return steps if isinstance(steps, int) and steps >= 0 else None


def _keep_reductions(
    scheduler: ReduceLROnPlateau,
    states: list[dict[str, Any]],
    configured: dict[str, Any],
    optimizers: list[Optimizer],
) -> None:
    index = optimizers.index(scheduler.optimizer)
    kinds = configured.get("optimizers") or []
    if index >= len(kinds):
        raise ValueError("lr_scheduler: the checkpoint does not say from which learning rate ReduceLROnPlateau began")
    saved = states[index]["param_groups"]
    for group, before, first in zip(scheduler.optimizer.param_groups, saved, kinds[index]["lr"], strict=True):
        # An unchanged learning rate is kept to the bit.
        group["lr"] = before["lr"] if group["lr"] == first else group["lr"] * before["lr"] / first


def _take_present_options(optimizer: Optimizer, state: dict[str, Any]) -> None:
    changes = {}
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        present = {name: value for name, value in group.items() if name != "params"}
        for name in present.keys() - _OF_SCHEDULES:
            if _plain(present[name]) != _plain(saved.get(name)):
                changes[name] = f"{name} {_plain(saved.get(name))} is now {_plain(present[name])}"
        for name in _OF_SCHEDULES:
            saved.pop(name, None)
        saved.update(present)
    if changes:
        _say(
            f"{type(optimizer).__name__} goes on with other settings than the checkpoint's:",
            *map(changes.get, sorted(changes)),
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@rank_zero_only
def _say(first: str, *lines: str) -> None:
    say(first, *lines, indent="  ")

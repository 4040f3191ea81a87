"""What would end a run at the end of its first epoch is refused before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from robust_asr.storage import sealed

# What a ModelCheckpoint may watch besides what is logged.
_COUNTED = {"epoch", "step"}
_OURS = ("lightning_modules.", "pytorch_lightning.")


class FirstEpoch(Callback):
    """Refuses a value to watch that nobody logs, and a state that no checkpoint can hold.

    What is logged is known of modules that say so (``logged_names``) and of the callbacks of this project and of Lightning; with
    other modules and callbacks a name is not judged.

    Errors: ValueError names the setting.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.fast_dev_run:
            self._check_watched(trainer, pl_module)
            _check_states(trainer)

    def _check_watched(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = _logged(trainer, pl_module)
        if logged is None:
            return
        for setting, name in _watched(trainer):
            if name not in logged and not name.startswith("time/"):
                raise ValueError(f"{setting}: nothing is logged as {name!r}; logged are {', '.join(sorted(logged))}")


def _logged(trainer: pl.Trainer, pl_module: pl.LightningModule) -> set[str] | None:
    """None where nobody knows."""
    own = vars(type(pl_module)).get("logged_names")
    if not hasattr(pl_module, "logged_names") or not (own or type(pl_module).__module__.startswith(_OURS)):
        return None
    names = set(pl_module.logged_names())
    for callback in trainer.callbacks:
        if hasattr(callback, "logged_names"):
            names |= callback.logged_names()
        elif not type(callback).__module__.startswith(_OURS):
            return None
    return {name for name in names if _validates(trainer) or not name.startswith("val/")}


def _validates(trainer: pl.Trainer) -> bool:
    return trainer.enable_validation and bool(trainer.datamodule.dataloader_names("validate"))


def _watched(trainer: pl.Trainer) -> Iterator[tuple[str, str]]:
    for callback in trainer.callbacks:
        name = getattr(callback, "monitor", None)
        # EarlyStopping that is not strict goes on without a value.
        if name is None or (isinstance(callback, EarlyStopping) and not callback.strict):
            continue
        # Without validation no checkpoint is chosen by one, which Lightning says in a warning; the run is none the worse.
        unused = name.startswith("val/") and not _validates(trainer)
        if isinstance(callback, ModelCheckpoint) and (name in _COUNTED or unused):
            continue
        yield f"monitor of {type(callback).__name__}", name
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.strict and config.monitor is not None:
            yield f"lr_scheduler: monitor of {type(config.scheduler).__name__}", config.monitor


def _check_states(trainer: pl.Trainer) -> None:
    states: list[tuple[str, Any, Any]] = [
        ("lr_scheduler", config.scheduler, config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs
    ]
    states += [("trainer.callbacks", callback, callback.state_dict()) for callback in trainer.callbacks]
    for setting, owner, state in states:
        try:
            sealed.check({"state": state})
        except ValueError as error:
            raise ValueError(
                f"{setting}: the state of {type(owner).__name__} has no place in a checkpoint, so the run could not go on ({error})"
            ) from error

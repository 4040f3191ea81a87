"""Loggers go back to the step of the checkpoint that a run resumes from."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from lightning_modules.loggers import RunCSVLogger, RunWandbLogger, check_run_id
from lightning_modules.trainer_internals import accumulates, batches_stepped, logs_batch, metrics_to_log


class RewindLoggers(Callback):
    """After a resume the loggers go back to the step of the checkpoint, so that the curve has no gap and no repeat.

    A step of the log is a batch that ended in an optimiser step, however many optimisers stepped on it. A checkpoint holds the
    step that comes next in the log, and the W&B run id as plain text. Whatever was measured before a checkpoint is on disk before
    the checkpoint is: Lightning would log it after saving, and a kill in between would lose it.
    """

    def __init__(self) -> None:
        self._next_step: int | None = None
        self._unlogged_step: int | None = None
        self._run_id: str | None = None
        self._config_logged = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        ids = [logger.version for logger in trainer.loggers if isinstance(logger, RunWandbLogger)]
        self._run_id = ids[0] if ids else self._run_id

    def state_dict(self) -> dict[str, Any]:
        return {"next_step": self._next_step, "wandb_run_id": self._run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        next_step, run_id = state_dict.get("next_step"), state_dict.get("wandb_run_id")
        if next_step is not None and (not isinstance(next_step, int) or next_step < 0):
            raise ValueError(f"the checkpoint's next_step must be a step of the log, found {next_step!r}")
        self._next_step = next_step
        # The id in the run folder was chosen before any checkpoint was read, and goes before the checkpoint's.
        self._run_id = self._run_id or (None if run_id is None else check_run_id(run_id))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = batches_stepped(trainer) if self._next_step is None else self._next_step
        for logger in _run_loggers(trainer):
            logger.rewind(step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = batches_stepped(trainer)
        self._unlogged_step = None
        # Set before the batch: a callback that runs before this one may save right after it.
        self._next_step = step if accumulates(trainer) else step + 1
        for logger in trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.complete_before(step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if logs_batch(trainer):
            self._unlogged_step = batches_stepped(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unlogged_step = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unlogged_step = batches_stepped(trainer) - 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unlogged_step = None
        if not self._config_logged:
            # Not before: the configuration is written when the run has begun.
            self._config_logged = True
            for logger in trainer.loggers:
                if isinstance(logger, RunWandbLogger):
                    logger.log_run_config()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unlogged_step = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loggers = _run_loggers(trainer)
        if self._unlogged_step is not None:
            metrics = metrics_to_log(trainer)
            metrics.setdefault("epoch", trainer.current_epoch)
            for logger in loggers if len(metrics) > 1 else []:
                logger.log_metrics(metrics, self._unlogged_step)
        for logger in loggers:
            if isinstance(logger, RunCSVLogger):
                logger.sync()


def _run_loggers(trainer: pl.Trainer) -> list[RunCSVLogger | RunWandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger | RunWandbLogger)]

"""A schedule that follows what is measured steps once an epoch, also where the run is interrupted."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from lightning_modules.trainer_internals import epoch_is_whole, step_plateau_schedules

# An interval that Lightning never reaches.
_BY_US = "end of the epoch"


class PlateauSteps(Checkpoint):
    """Steps ``ReduceLROnPlateau`` before ``last.ckpt`` of the epoch is written.

    Lightning steps it after that, where a checkpoint knows nothing of the step, and leaves it out at the end of an epoch in the
    middle of which the run was resumed.

    It is a ``Checkpoint`` for its place: after every callback and hook that logs, before ``LastCheckpoint``.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch":
                config.interval = _BY_US

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if epoch_is_whole(trainer):
            step_plateau_schedules(trainer, _BY_US)

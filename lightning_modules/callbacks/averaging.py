"""Average of the weights at the end of each of the last epochs (JO22: the last five)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from lightning_modules.trainer_internals import epochs_done


class LastEpochsAveraging(WeightAveraging):
    """Validation, checkpoints and the final model use the equal average of the weights after each of the last epochs.

    Before the first of them the current weights are used; Lightning's own class would validate the initial ones. The weights of
    an epoch enter before its validation, so that the last one is of the average that is kept. Where ``trainer.max_epochs`` is
    raised after the end of a run, the average begins anew with the epochs that are now the last.

    Buffers are averaged too, except those of integers, such as the counts of BatchNorm, which are those of the last epoch.

    Args:
        num_epochs: how many epochs, counted from the end (``trainer.max_epochs``), enter the average.

    Errors: ValueError where a run goes on and the weights after some of the last epochs were not kept.
    """

    def __init__(self, num_epochs: int = 5) -> None:
        # torch's default averages with a kernel for lists of tensors on a GPU, and that kernel refuses integers.
        super().__init__(avg_fn=running_mean)
        if num_epochs < 1:
            raise ValueError(f"num_epochs must be at least 1, found {num_epochs}")
        self.num_epochs = num_epochs
        self._first_epoch = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            if trainer.max_epochs is None or trainer.max_epochs < 0:
                raise ValueError("LastEpochsAveraging counts from the last epoch: set trainer.max_epochs")
            self._first_epoch = trainer.max_epochs - self.num_epochs

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self._first_epoch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch:
            self.on_train_epoch_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is None:
            return
        num_done, between_epochs = epochs_done(checkpoint)
        num_averaged = int(checkpoint.get("averaging_state", {}).get("n_averaged", 0))
        averaged = range(num_done - num_averaged, num_done)
        wanted = range(max(self._first_epoch, 0), num_done)
        if averaged == wanted:
            return
        if len(wanted) > between_epochs:
            raise ValueError(
                f"trainer.max_epochs: the average of the last {self.num_epochs} epochs would begin with epoch {wanted[0]}, whose "
                f"weights were not kept; the run has done {num_done} epochs, set it to at least {num_done + self.num_epochs}"
            )
        self._average_model.module.load_state_dict(pl_module.state_dict())
        self._average_model.n_averaged.fill_(len(wanted))

    @property
    def _started(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._started:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._started:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._started:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None and not self._started:
            self._average_model.module.load_state_dict(pl_module.state_dict())
        super().on_save_checkpoint(trainer, pl_module, checkpoint)


def running_mean(mean: Tensor, value: Tensor, count: Tensor) -> Tensor:
    """The mean of ``count`` values and one more; of integers the last value, and of equal values exactly that value."""
    if not mean.is_floating_point():
        return value
    # The difference of two infinities would be nan: a table of log-probabilities may hold them.
    return torch.where(value == mean, mean, mean + (value - mean) / (count + 1))

"""A signal from the scheduler: save between two batches and leave, so that the job can go on elsewhere."""

from __future__ import annotations

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from lightning_modules.callbacks.checkpoints import LastCheckpoint
from lightning_modules.trainer_internals import accumulates

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again.


class Preemption(Checkpoint):
    """On SIGUSR1 every rank finishes its batch, rank zero saves ``last.ckpt``, and the process exits with code 75.

    The job script asks the scheduler to run it again and starts with ``--ckpt_path last``. Lightning's own handler saves inside
    the signal, in the middle of a step, and cannot be exact.

    It is a ``Checkpoint`` for its place: Lightning runs those after every callback that measures the batch, so that the row of
    the batch is complete when it is saved.
    """

    def __init__(self) -> None:
        self._asked = False

    def _ask(self, signum: int, frame: Any) -> None:
        self._asked = True

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGUSR1, self._ask)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and hasattr(self, "_previous"):
            signal.signal(signal.SIGUSR1, self._previous)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._agreed(trainer) or accumulates(trainer) or trainer.is_last_batch:
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save(trainer)
        raise SystemExit(EXIT_CODE)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A signal during the last batch of an epoch, or during its validation, is obeyed here: last.ckpt was just written.
        if self._agreed(trainer):
            raise SystemExit(EXIT_CODE)

    def _agreed(self, trainer: pl.Trainer) -> bool:
        """Whether any rank was signalled: the scheduler may signal one before another, and all must stop after the same batch."""
        if trainer.world_size == 1:
            return self._asked
        return trainer.strategy.reduce_boolean_decision(self._asked, all=False)

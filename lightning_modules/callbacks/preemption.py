"""A signal from the scheduler: save between two batches and leave, so that the job can go on elsewhere."""

from __future__ import annotations

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from lightning_modules.callbacks.checkpoints import LastCheckpoint

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again.


class Preemption(Callback):
    """On SIGUSR1 every rank finishes its batch, rank zero saves ``last.ckpt``, and the process exits with code 75.

    The job script asks the scheduler to run it again and starts with ``--ckpt_path last``. Lightning's own handler saves inside
    the signal, in the middle of a step, and cannot be exact.
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
        # The scheduler may signal one rank before another: they must agree on the batch after which they stop.
        asked = (
            trainer.strategy.reduce_boolean_decision(self._asked, all=False) if trainer.world_size > 1 else self._asked
        )
        loop = trainer.fit_loop.epoch_loop
        if not asked or loop._should_accumulate() or loop.batch_progress.is_last_batch:
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save(trainer)
        raise SystemExit(EXIT_CODE)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Asked during the last batch of an epoch or its validation: last.ckpt was just written.
        asked = (
            trainer.strategy.reduce_boolean_decision(self._asked, all=False) if trainer.world_size > 1 else self._asked
        )
        if asked:
            raise SystemExit(EXIT_CODE)

"""How fast training is, and whether it waits for data."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from lightning_modules.trainer_internals import logs_batch
from robust_asr.types import AudioBatch


class Throughput(Callback):
    """Logs, of the steps since the last logged one and without validation and checkpoints:

    ``time/audio_seconds_per_second``: seconds of audio trained on, of all ranks, per second.
    ``time/data_wait_share``: the share of the time in which this process waited for the loader. On a GPU an upper bound
    of the GPU's waiting, since the host runs ahead of it.

    Lengths are summed on the device of the batch, so that only a logged step waits for the device.

    The module has a ``sample_rate``, and its batches are ``AudioBatch``; it asks for this callback in ``configure_callbacks``.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._since: float | None = None
        self._busy = self._waited = 0.0
        self._samples: torch.Tensor | int = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start()

    def _interrupt(self, *args: Any) -> None:
        self._since = None

    # Validating, saving and closing an epoch are neither work on a batch nor waiting for one.
    on_validation_start = on_save_checkpoint = on_train_epoch_end = _interrupt

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: AudioBatch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self._waited += now - self._since
        self._since = now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: AudioBatch, batch_idx: int
    ) -> None:
        self._samples = self._samples + batch.lengths.sum()
        due = logs_batch(trainer)
        # Reading the sum waits for the device, so that the time below covers the work and not only its launch.
        samples = float(self._samples) if due else 0.0
        now = time.perf_counter()
        self._busy += now - (now if self._since is None else self._since)
        self._since = now
        if due:
            self._log(pl_module, samples / pl_module.sample_rate)

    def _log(self, pl_module: pl.LightningModule, audio_seconds: float) -> None:
        total = max(self._busy + self._waited, 1e-9)
        pl_module.log(
            "time/audio_seconds_per_second", audio_seconds / total, batch_size=1, sync_dist=True, reduce_fx="sum"
        )
        pl_module.log("time/data_wait_share", self._waited / total, batch_size=1)
        self._busy = self._waited = 0.0
        self._samples = 0

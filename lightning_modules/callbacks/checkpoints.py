"""When a run writes checkpoints: ``last`` to go on from, ``best`` to evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import pytorch_lightning.callbacks
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from lightning_modules.trainer_internals import accumulates, batches_stepped
from robust_asr.storage.parts import not_finite


class RunCheckpoint(pytorch_lightning.callbacks.ModelCheckpoint):
    """Lightning's, for which a value that is not finite is never the best; there the first value is, whatever it is."""

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        return current is not None and bool(torch.isfinite(current)) and super().check_monitor_top_k(trainer, current)


class LastCheckpoint(Checkpoint):
    """``last.ckpt``: after every epoch, and every ``every_n_steps`` batches within one.

    A batch counts when it ends in a step; two optimisers that step on one batch count once, and one that starts late changes
    nothing.

    Weights that are not finite are in no checkpoint, not in those of other callbacks either: FloatingPointError.

    Lightning's ModelCheckpoint does not save at the end of an epoch whose last step it has saved: an average or a schedule, which
    steps at the end of an epoch, would step twice or never after a resume.
    """

    def __init__(self, folder: str, *, every_n_steps: int | None = None) -> None:
        self.path = str(Path(folder) / "last.ckpt")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.every_n_steps or trainer.is_last_batch or accumulates(trainer):
            return
        # Lightning counts the batch at hand only after this hook.
        if (batches_stepped(trainer) + 1) % self.every_n_steps == 0:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        parameters = dict(pl_module.named_parameters())
        broken = not_finite(parameters, parameters) or not_finite(checkpoint["state_dict"], parameters)
        if broken is not None:
            raise FloatingPointError(
                f"the weights {broken} are not finite after {trainer.global_step} steps; they are not saved, and the checkpoints "
                "before them stay as they are"
            )

    def save(self, trainer: pl.Trainer) -> None:
        """Save now. ``RewindLoggers`` puts the row of the step just made on disk first."""
        if not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path)


class Checkpoints:
    """Settings of what a run saves under ``<run_dir>/checkpoints``.

    Args:
        every_n_steps: ``last.ckpt`` within an epoch too, every so many batches that end in a step; needed where an epoch takes
            hours.
        monitor: the logged value by which ``best.ckpt`` is chosen; null saves none.
        mode: whether less or more of it is better.
    """

    def __init__(
        self, *, every_n_steps: int | None = None, monitor: str | None = "val/wer", mode: Literal["min", "max"] = "min"
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps must be at least 1 or null, found {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.mode = mode

    def callbacks(self, folder: Path) -> list[Checkpoint]:
        """The callbacks that write into ``folder``."""
        callbacks: list[Checkpoint] = [LastCheckpoint(str(folder), every_n_steps=self.every_n_steps)]
        if self.monitor is not None:
            best = RunCheckpoint(
                dirpath=folder,
                filename="best",
                monitor=self.monitor,
                mode=self.mode,
                save_top_k=1,
                auto_insert_metric_name=False,
                enable_version_counter=False,
            )
            # Before last.ckpt, so that the best score which last.ckpt records is that of this epoch: written after it, the best of
            # an epoch would be lost where a kill comes between the two. As it is, such a kill leaves best.ckpt ahead of last.ckpt,
            # or alone, and the run goes on from it, since it is the more advanced of the two and holds the whole state.
            callbacks.insert(0, best)
        return callbacks

"""How far a run is: one bar, whatever runs."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from lightning_modules.callbacks.time_left import TimeLeft, training_batches_left

_FORMAT = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} batches [{elapsed}{postfix}]"
_WITHOUT_END = "{desc}: {n_fmt} batches, their number is unknown [{elapsed}{postfix}]"
# Between two lines where the output goes to a file, which nobody watches.
_SECONDS_IN_A_FILE = 30.0


class RunProgress(ProgressBar):
    """``epoch 2/9:  45%|#########           | 339/751 batches [02:10, 1:23:45 left, train/loss=0.412]``

    What is left is left of the whole run: of all epochs, or of all evaluation sets. A validation within training takes no bar of
    its own. An epoch of buckets has a length that the data module knows (``num_batches``) and Lightning does not.

    A module whose batches take minutes calls ``say``: an evaluation of many systems then knows its end after the first of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar = tqdm(disable=True)
        self._time = TimeLeft()
        self._metrics = self._saying = ""

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        self._bar.write(sep.join(map(str, args)), **kwargs)

    def say(self, what: str, *, share: float = 0.0) -> None:
        """Show what begins now, and what share of the work on the batch at hand it is."""
        self._time.begin_share(share)
        self._saying = what
        self._show()

    def _open(self, description: str, total: float) -> None:
        self._metrics = self._saying = ""
        known = not math.isinf(total)
        self._bar = tqdm(
            desc=description,
            total=int(total) if known else None,
            bar_format=_FORMAT if known else _WITHOUT_END,
            disable=not self._enabled,
            file=sys.stdout,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stdout.isatty() else _SECONDS_IN_A_FILE,
            # The interval alone decides: tqdm would learn from quick batches to look at the clock less often.
            miniters=0,
        )

    def _close(self) -> None:
        self._saying = ""
        self._show()
        self._bar.close()

    def _finish_batch(self, num_done: int) -> None:
        self._time.finish_batch()
        self._saying = ""
        self._bar.n = num_done
        self._show()

    def _show(self) -> None:
        if self._bar.disable:
            return
        seconds = self._time.seconds(self._batches_left())
        left = "time left unknown" if seconds is None else f"{tqdm.format_interval(seconds)} left"
        self._bar.set_postfix_str(", ".join(filter(None, (left, self._metrics, self._saying))), refresh=False)
        self._bar.update(0)

    def _batches_left(self) -> float | None:
        if self.trainer.state.fn != "fit":
            return None if self._bar.total is None else self._bar.total - self._bar.n
        steps = self.trainer.global_step - self._first_step
        return training_batches_left(
            self.trainer,
            of_epoch=self._bar.total,
            done=self._bar.n,
            batches_a_step=self._time.batches / steps if steps else 0.0,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first_step = trainer.global_step
        self._time = TimeLeft()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = trainer.max_epochs
        of = f"/{epochs}" if epochs is not None and epochs > 0 else ""
        self._open(f"epoch {trainer.current_epoch + 1}{of}", self.total_train_batches if self._enabled else math.inf)

    @property
    def total_train_batches(self) -> float:
        count = getattr(self.trainer.datamodule, "num_batches", None)
        counted = None if count is None else count(self.trainer.current_epoch)
        return min(self.trainer.num_training_batches, math.inf if counted is None else counted)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._read_metrics(trainer, pl_module)
        self._finish_batch(batch_idx + 1)

    def _read_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._enabled:
            metrics = self.get_metrics(trainer, pl_module).items()
            self._metrics = ", ".join(f"{name}={value:.3g}" for name, value in metrics if isinstance(value, float))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read_metrics(trainer, pl_module)
        self._close()

    def _evaluation_starts(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sizes = {"test": trainer.num_test_batches, "predict": trainer.num_predict_batches}
        self._total = sum(sizes.get(trainer.state.fn.value, trainer.num_val_batches))
        self._num_evaluated = 0
        if trainer.state.fn != "fit":
            self._time = TimeLeft()
            self._open(trainer.state.fn.value, self._total)

    on_validation_start = on_test_start = on_predict_start = _evaluation_starts

    def _evaluated(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._num_evaluated += 1
        if trainer.state.fn != "fit":
            self._finish_batch(self._num_evaluated)
        else:
            self._saying = f"validating {self._num_evaluated}/{self._total}"
            self._show()

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _evaluated

    def _evaluation_ends(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saying = ""
        if trainer.state.fn != "fit":
            self._close()

    on_validation_end = on_test_end = on_predict_end = _evaluation_ends

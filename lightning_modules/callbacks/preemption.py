"""A signal from the scheduler or from Ctrl-C: save between two batches and leave, so that the job can go on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint

from lightning_modules.callbacks.checkpoints import LastCheckpoint
from lightning_modules.loggers import RunWandbLogger
from lightning_modules.trainer_internals import accumulates, batches_stepped
from robust_asr.text.terminal import say

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again.


class _Handlers(Callback):
    """Handles signals until the run ends, however it ends, and then puts the handlers before its own back."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def _handle(self, handler: Callable[[int, FrameType | None], None], *signals: int) -> None:
        for signum in signals:
            self._previous.setdefault(signum, signal.signal(signum, handler))

    def _restore(self) -> None:
        for signum, previous in self._previous.items():
            signal.signal(signum, previous)
        self._previous = {}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()


class Preemption(_Handlers, Checkpoint):
    """On SIGUSR1, SIGTERM or Ctrl-C every rank finishes its batch, rank zero saves ``last.ckpt``, and the process exits with 75.

    The job script asks the scheduler to run it again and starts with ``--ckpt_path last``. Lightning's own handlers save inside
    the signal, in the middle of a step, and cannot be exact, or save nothing and exit with 0. A second Ctrl-C stops at once.

    It is a ``Checkpoint`` for its place: Lightning runs those after every callback that measures the batch, so that the row of
    the batch is complete when it is saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False
        self._name = "a signal to another process"

    def _ask(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGINT:
            if self._asked:
                raise KeyboardInterrupt
            say("the batch at hand is finished and saved; Ctrl-C once more stops at once", file=sys.stderr)
        self._asked = True
        self._name = signal.Signals(signum).name

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._handle(self._ask, signal.SIGUSR1, signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning puts its own handler of SIGTERM before ours after the hook above.
        self._handle(self._ask, signal.SIGTERM, signal.SIGINT)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._agreed(trainer) or accumulates(trainer) or trainer.is_last_batch:
            return
        for callback in _last_checkpoints(trainer):
            callback.save(trainer)
        self._leave(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A signal during the last batch of an epoch, or during its validation, is obeyed here: last.ckpt was just written.
        # Before the first step there is nothing to go on from: the first batch is awaited.
        if self._agreed(trainer) and batches_stepped(trainer):
            self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> NoReturn:
        if trainer.is_global_zero:
            saved = [callback.path for callback in _last_checkpoints(trainer) if Path(callback.path).exists()]
            how = f"{saved[0]} holds the run up to here; go on with --ckpt_path last" if saved else "nothing was saved"
            say(f"stopped by {self._name} after {trainer.global_step} steps: {how}", file=sys.stderr)
            # Whoever presses Ctrl-C wants no agent of a sweep to go on.
            for logger in trainer.loggers if self._name != signal.SIGINT.name else ():
                if isinstance(logger, RunWandbLogger):
                    logger.mark_preempted()
        raise SystemExit(EXIT_CODE)

    def _agreed(self, trainer: pl.Trainer) -> bool:
        """Whether any rank was signalled: the scheduler may signal one before another, and all must stop after the same batch."""
        if trainer.world_size == 1:
            return self._asked
        return trainer.strategy.reduce_boolean_decision(self._asked, all=False)


class StoppedEvaluation(_Handlers):
    """SIGUSR1, SIGTERM or Ctrl-C end ``test`` and ``predict`` at once with 75: their rows and attacks are on disk while they run.

    Not between two batches, one of which may take an hour. Lightning's own handler of SIGTERM waits for that, or for the other
    ranks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._name: str | None = None

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def stop(signum: int, frame: FrameType | None) -> NoReturn:
            self._name = signal.Signals(signum).name
            self._leave(trainer, pl_module)

        self._handle(stop, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

    on_test_start = on_predict_start = _begin

    def _leave(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> NoReturn:
        self._restore()
        if trainer.is_global_zero:
            folder = getattr(pl_module, "run_dir", trainer.default_root_dir)
            say(
                f"stopped by {self._name}: what was measured is in {folder}, and the same command goes on from there",
                file=sys.stderr,
            )
        raise SystemExit(EXIT_CODE)

    def _after_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        # The exception is lost where the signal meets code that lets none through, such as the end of an object.
        if self._name is not None:
            self._leave(trainer, pl_module)

    on_test_batch_end = on_predict_batch_end = _after_batch


def _last_checkpoints(trainer: pl.Trainer) -> list[LastCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]

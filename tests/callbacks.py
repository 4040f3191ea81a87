"""Callbacks of the tests: kill a training process from inside at an exact point, record what it saw."""

from __future__ import annotations

import itertools
import os
import signal
import time

from pytorch_lightning.callbacks import Callback, Checkpoint

from robust_asr.checkpoint import weights_hash


class KillAt(Callback):
    """Sends a signal to its own process after a batch.

    Args:
        epoch, batch: where.
        rank: only there; -1 on every rank.
        signal_name: SIGKILL cannot be caught, SIGUSR1 asks for a checkpoint.
    """

    def __init__(self, epoch: int, batch: int, rank: int = -1, signal_name: str = "SIGKILL") -> None:
        self.epoch = epoch
        self.batch = batch
        self.rank = rank
        self.signal_name = signal_name

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch) and self.rank in (-1, trainer.global_rank):
            os.kill(os.getpid(), getattr(signal, self.signal_name))
            time.sleep(0.1)


class PoisonAt(Callback):
    """Makes the weights of one rank NaN before a batch: its loss, and no other rank's, is not finite."""

    def __init__(self, epoch: int, batch: int, rank: int) -> None:
        self.epoch = epoch
        self.batch = batch
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == (self.epoch, self.batch, self.rank):
            pl_module.recognizer.head.weight.data.fill_(float("nan"))


class RecordBatches(Callback):
    """Appends ``epoch batch id id ...`` of every training batch to ``<path>.<rank>``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            print(trainer.current_epoch, batch_idx, *batch.ids, file=file)


class RecordWeights(Callback):
    """Writes a hash of the weights of this rank to ``<path>.<rank>`` when training ends."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module) -> None:
        with open(f"{self.path}.{trainer.global_rank}", "w") as file:
            file.write(weights_hash(getattr(pl_module, "recognizer", pl_module)))


class KillInEvaluation(Callback):
    """Sends SIGKILL to its own process in the middle of a test batch: when a system begins to hear it.

    Args:
        after: calls of ``transcribe`` before that, of all systems together.
        rank: only there.
    """

    def __init__(self, after: int, rank: int = 0) -> None:
        self.after = after
        self.rank = rank

    def on_test_start(self, trainer, pl_module) -> None:
        if trainer.global_rank != self.rank:
            return
        calls = itertools.count(1)

        def count(recognizer, arguments) -> None:
            if next(calls) > self.after:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.1)

        for recognizer in pl_module.recognizers:
            recognizer.head.register_forward_pre_hook(count)

    def on_predict_start(self, trainer, pl_module) -> None:
        self.on_test_start(trainer, pl_module)


class RecordSaves(Callback):
    """Appends ``epoch, batches of the epoch done`` of every checkpoint to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        with open(self.path, "a") as file:
            print(trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.processed, file=file)


class EndAt(Callback):
    """Ends one rank at a batch of whatever runs.

    Args:
        batch, rank: where.
        how: the name of a signal to its own process, or "ValueError".
    """

    def __init__(self, batch: int, rank: int, how: str) -> None:
        self.batch = batch
        self.rank = rank
        self.how = how

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        if (batch_idx, trainer.global_rank) != (self.batch, self.rank):
            return
        if self.how == "ValueError":
            raise ValueError("utterance s1-2: its audio is gone")
        os.kill(os.getpid(), getattr(signal, self.how))
        time.sleep(0.1)

    on_test_batch_start = on_predict_batch_start = on_train_batch_start


class KillInHook(Checkpoint):
    """SIGKILL in a hook of an epoch; a checkpoint callback, so that it comes after those that measure.

    Args:
        hook: the name of a hook of a callback.
        epoch: where.
    """

    def __init__(self, hook: str, epoch: int) -> None:
        self.epoch = epoch
        setattr(self, hook, self._kill)

    def _kill(self, trainer, *args, **kwargs) -> None:
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.1)

"""Every private name of Lightning's trainer that this project reads: an upgrade of Lightning breaks here and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning_fabric.utilities.apply_func import convert_tensors_to_scalars
from torch.distributed.distributed_c10d import _set_pg_timeout


def batches_stepped(trainer: pl.Trainer) -> int:
    """The training batches before the one at hand that ended in an optimiser step; the loggers' step.

    ``trainer.global_step`` counts the steps of each optimiser: with two of them it is no number of batches.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def accumulates(trainer: pl.Trainer) -> bool:
    """Whether the optimiser waits for more batches after the one at hand; the public settings do not know the end of an epoch."""
    return trainer.fit_loop._should_accumulate()


def logs_batch(trainer: pl.Trainer) -> bool:
    """Whether the loggers get a row for the batch at hand: what is measured for a row is measured only then."""
    return trainer._logger_connector.should_update_logs and not accumulates(trainer)


def metrics_to_log(trainer: pl.Trainer) -> dict[str, Any]:
    """What was logged and not yet handed to the loggers; ``trainer.logged_metrics`` holds only what was handed to them.

    Every rank must call it: computing a metric may be a collective.
    """
    return convert_tensors_to_scalars(trainer._logger_connector.metrics["log"])


def is_restoring(trainer: pl.Trainer) -> bool:
    """Whether the trainer holds a checkpoint that it has not restored to the end."""
    return bool(trainer._checkpoint_connector._loaded_checkpoint)


def epochs_done(checkpoint: dict[str, Any]) -> tuple[int, bool]:
    """How many epochs a checkpoint has behind it, and whether it is of the moment between two."""
    loops = checkpoint["loops"]["fit_loop"]
    epochs, at_last_batch = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]["is_last_batch"]
    under_way = epochs["started"] > epochs["processed"]
    return epochs["processed"] + (under_way and at_last_batch), not under_way or at_last_batch


def epoch_is_whole(trainer: pl.Trainer) -> bool:
    """Whether the epoch at hand ends with its last batch, and not because the run is told to stop."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def step_plateau_schedules(trainer: pl.Trainer, interval: str) -> None:
    """Step the schedules of an interval that follow what is measured."""
    trainer.fit_loop.epoch_loop._update_learning_rates(interval, update_plateau_schedulers=True)


def after_process_group(trainer: pl.Trainer, action: Callable[[], None]) -> None:
    """Have an action done when the ranks have joined their process group: no hook of a callback comes so early."""
    join = trainer.strategy.setup_environment

    def setup_environment() -> None:
        join()
        action()

    trainer.strategy.setup_environment = setup_environment


def wait_for_living_ranks() -> None:
    """A collective waits as long as the other ranks live; torch would end it after half an hour of their work."""
    _set_pg_timeout(timedelta(days=365))


def end_child_observer() -> None:
    """Lightning's own watch of the processes that it started ends them, and this one, with SIGKILL and without a word."""
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []

"""How long a run still takes, from how long its batches took so far."""

from __future__ import annotations

import time

import pytorch_lightning as pl


class TimeLeft:
    """Batches that this process worked on, whole ones and shares of one, and the seconds they took.

    Validations, checkpoints and waiting are part of those seconds, so that they are part of what is left.
    """

    def __init__(self) -> None:
        self._start, self._batches = time.monotonic(), 0.0
        self._share = self._of_batch = 0.0
        self._in_shares = False

    @property
    def batches(self) -> float:
        return self._batches

    def begin_share(self, share: float) -> None:
        """A share of the work on the batch at hand begins; the one before it is finished."""
        if share and not self._in_shares:
            # Before its first share a resumed evaluation skips what it has rows of: that took no time and says nothing.
            self._in_shares, self._start, self._batches = True, time.monotonic(), 0.0
        self._batches += self._share
        self._of_batch += self._share
        self._share = share

    def finish_batch(self) -> None:
        self.begin_share(0.0)
        self._batches += 0.0 if self._in_shares else 1.0
        self._of_batch = 0.0

    def seconds(self, batches_left: float | None) -> float | None:
        """Until so many batches, the one at hand included, are done; None where that cannot be said."""
        if batches_left is None or not self._batches:
            return None
        return max(batches_left - self._of_batch, 0.0) * (time.monotonic() - self._start) / self._batches


def training_batches_left(
    trainer: pl.Trainer, *, of_epoch: int | None, done: int, batches_a_step: float
) -> float | None:
    """Batches until ``max_epochs`` or ``max_steps``, whichever comes first; None where neither is known.

    Args:
        of_epoch: batches of an epoch, None where the number is unknown.
        done: of the present epoch.
        batches_a_step: several optimisers make several steps a batch, and accumulated gradients take several batches a step;
            0 where no step has been made yet.
    """
    limits = []
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if of_epoch is not None and epochs is not None and epochs > 0:
        limits.append(max(epochs - trainer.current_epoch, 1) * of_epoch - done)
    if steps > 0 and batches_a_step:
        limits.append(batches_a_step * (steps - trainer.global_step))
    return min(limits, default=None)

"""Learning-rate schedules that torch does not have."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Noam(LRScheduler):
    """Linear warm-up, then the inverse square root of the step (Vaswani et al. 2017, section 5.3); a step is an optimiser step.

    At step s, counted from 1, the optimiser's own learning rate is multiplied by width^-0.5 min(s^-0.5, s warmup_steps^-1.5);
    with ``lr: 1.0`` in the optimiser this is the paper's learning rate.
    """

    def __init__(self, optimizer: Optimizer, *, width: int, warmup_steps: int, last_epoch: int = -1) -> None:
        if width < 1 or warmup_steps < 1:
            raise ValueError(f"Noam: width and warmup_steps must be at least 1, found {width} and {warmup_steps}")
        self.width = width
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self.last_epoch + 1
        scale = self.width**-0.5 * min(step**-0.5, step * self.warmup_steps**-1.5)
        return [rate * scale for rate in self.base_lrs]


class TriStage(LRScheduler):
    """Linear warm-up, a constant rate, an exponential fall to a hundredth of it (Park et al. 2019, section 3; fairseq, Espresso).

    A step is an optimiser step. The warm-up begins at a hundredth of the optimiser's own learning rate; after the fall the rate
    stays.
    """

    def __init__(
        self, optimizer: Optimizer, *, warmup_steps: int, hold_steps: int, decay_steps: int, last_epoch: int = -1
    ) -> None:
        if warmup_steps < 1 or hold_steps < 0 or decay_steps < 1:
            raise ValueError(
                "TriStage: warmup_steps and decay_steps must be at least 1 and hold_steps at least 0, found "
                f"{warmup_steps}, {decay_steps} and {hold_steps}"
            )
        self.warmup_steps = warmup_steps
        self.hold_steps = hold_steps
        self.decay_steps = decay_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step, least = self.last_epoch, 0.01
        if step < self.warmup_steps:
            scale = least + (1 - least) * step / self.warmup_steps
        else:
            fallen = min(max(step - self.warmup_steps - self.hold_steps, 0) / self.decay_steps, 1.0)
            scale = least**fallen
        return [rate * scale for rate in self.base_lrs]

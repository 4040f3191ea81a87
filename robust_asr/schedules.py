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

"""An objective that steps two optimisers by hand: what a critic and the model it judges need, with nothing to recognise."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_modules.callbacks.throughput import Throughput
from robust_asr.types import AudioBatch


class Duel(pl.LightningModule):
    """A model of the loudness of a batch, and a critic that learns from the model's error once the model had a head start.

    Args:
        model_optimizer, critic_optimizer: built from the parameters of each.
        head_start: batches on which only the model steps.
        max_gradient_norm: manual optimisation clips by itself.
    """

    sample_rate = 16_000

    def __init__(
        self,
        *,
        model_optimizer: OptimizerCallable,
        critic_optimizer: OptimizerCallable,
        head_start: int = 3,
        max_gradient_norm: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.critic = nn.Linear(2, 4), nn.Linear(4, 1)
        self.model_optimizer, self.critic_optimizer = model_optimizer, critic_optimizer
        self.head_start, self.max_gradient_norm, self.seed = head_start, max_gradient_norm, seed
        # A buffer: the head start is not given again after a resume.
        self.register_buffer("num_batches", torch.tensor(0))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.model_optimizer(self.model.parameters()), self.critic_optimizer(self.critic.parameters())]

    def configure_callbacks(self) -> list[pl.Callback]:
        return [Throughput()]

    def training_step(self, batch: AudioBatch, batch_idx: int) -> None:
        model_optimizer, critic_optimizer = self.optimizers()
        seconds = batch.lengths / self.sample_rate
        said = self.model(torch.stack([seconds, batch.waveforms.square().mean(1)], 1))
        self._step(model_optimizer, (said.mean(1) - seconds).square().mean())
        if self.num_batches >= self.head_start:
            self._step(critic_optimizer, self.critic(said.detach()).square().mean())
        self.num_batches += 1

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, self.max_gradient_norm, "norm")
        optimizer.step()
        self.log("train/loss", loss, batch_size=1)

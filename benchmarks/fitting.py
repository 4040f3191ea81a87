"""Common parts of the benchmarks that train with Lightning: an optimiser, and a trainer that writes no files."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from lightning_modules.adversarial import AdversarialFinetuning
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.models.compact import CompactCTC
from robust_asr.threat.ranges import LinfRange


class AdversarialStep(AdversarialFinetuning):
    """Adversarial fine-tuning of CompactCTC with PGD, and AdamW."""

    def __init__(self, recognizer: CompactCTC, *, num_iterations: int, precision: str = "32-true") -> None:
        attack = PaperPGD(LinfRange(1e-4, 0.02), num_iterations=num_iterations, precision=precision)
        super().__init__(recognizer, attack=attack)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def silent_trainer(**settings: Any) -> pl.Trainer:
    return pl.Trainer(
        **settings,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

"""Training a language model on transcripts, for shallow fusion (``robust_asr.search.decoder_beam.DecoderBeam``)."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.distributed import sum_over_ranks
from lightning_modules.writable import check_writable
from robust_asr.checkpoint import check_matches, metadata
from robust_asr.randomness import reseed_global
from robust_asr.search.language_model import LANGUAGE_MODEL, LanguageModel
from robust_asr.types import AudioBatch


class LanguageModelTraining(pl.LightningModule):
    """Teaches a language model the texts of the data; ``datamodules.Transcripts`` reads no audio for it.

    The training loss is the mean over the tokens of the global batch, the end of each text included, whatever the number of ranks.
    The checkpoint holds the language model as the part ``language_model``.

    Logged: ``train/loss`` in nats a token, ``val/<part>/perplexity`` of each evaluation set, exp(nats a token), and
    ``val/perplexity``, the mean over the sets.

    Args:
        seed: keys dropout; linked to ``seed_everything`` on the command line.
        lr_interval: whether the learning-rate schedule counts optimiser steps or epochs.

    Errors: ValueError names texts that the tokenizer cannot write, before the first step; FloatingPointError a loss that is not
        finite.
    """

    # The data need a rate; no audio is heard.
    sample_rate = 16_000

    def __init__(
        self, language_model: LanguageModel, *, seed: int = 0, lr_interval: Literal["step", "epoch"] = "epoch"
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.seed = seed
        self.lr_interval = lr_interval

    def logged_names(self) -> set[str]:
        """What is logged and may be watched, by a schedule or a checkpoint."""
        parts = self.trainer.datamodule.dataloader_names("validate")
        names = {f"val/{part}/perplexity" for part in parts} | ({"val/perplexity"} if parts else set())
        return {"train/loss"} | names

    def on_fit_start(self) -> None:
        self.language_model.train()
        check_writable(self.language_model.tokenizer, self.trainer.datamodule.texts("fit"))

    def on_train_batch_start(self, batch: AudioBatch, batch_idx: int) -> None:
        reseed_global(self.seed, self.global_rank, self.current_epoch, batch_idx)

    def training_step(self, batch: AudioBatch, batch_idx: int) -> Tensor:
        losses, counts = self._losses(batch)
        total, num_tokens = sum_over_ranks(losses.detach().sum(), counts.sum())
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is not finite in epoch {self.current_epoch}, batch {batch_idx}; the last checkpoint holds the weights "
                "before it"
            )
        self.log("train/loss", total / num_tokens, prog_bar=True, batch_size=len(batch))
        # DDP averages gradients over ranks: with this factor the result is the mean over the global batch.
        return losses.sum() * (self.trainer.world_size / num_tokens)

    def on_validation_epoch_start(self) -> None:
        self._names = self.trainer.datamodule.dataloader_names("validate")
        self._sums = torch.zeros(len(self._names), 2, dtype=torch.float64)

    def validation_step(self, batch: AudioBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        # Where fewer batches are left than there are ranks, a rank gets an empty one.
        if len(batch):
            self._sums[dataloader_idx] += torch.stack([part.double().sum().cpu() for part in self._losses(batch)])

    def on_validation_epoch_end(self) -> None:
        sums = [sum_over_ranks(*part.to(self.device)) for part in self._sums]
        perplexities = [math.exp(total / num_tokens) for total, num_tokens in sums]
        for name, perplexity in zip(self._names, perplexities, strict=True):
            self.log(f"val/{name}/perplexity", perplexity)
        self.log("val/perplexity", sum(perplexities) / len(perplexities), prog_bar=True)

    def _losses(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """Nats and number of tokens of each text, its end included. Shape: (B,), (B,)."""
        targets = self.language_model.targets(batch.texts)
        losses = self.language_model.loss(targets)
        return losses, targets.token_lengths.to(losses.device, non_blocking=True) + 1

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_matches(checkpoint, {LANGUAGE_MODEL: self.language_model}, "ckpt_path")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(metadata({LANGUAGE_MODEL: ("language_model.", self.language_model)}))

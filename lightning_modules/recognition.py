"""Recognition: minimise the loss of the reference text."""

from __future__ import annotations

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.distributed import gather_text, sum_over_ranks
from robust_asr.checkpoint import check_matches, metadata
from robust_asr.metrics import ErrorRates
from robust_asr.models.base import Recognizer
from robust_asr.randomness import reseed_global
from robust_asr.search.greedy import Decoder, use_decoder
from robust_asr.types import AudioBatch


class Recognition(pl.LightningModule):
    """Trains a recogniser on (waveform, text).

    The training loss is the mean over the utterances of the global batch, whatever the number of ranks. Utterances whose text
    does not fit into their frames are left out of it, named once, and counted in ``train/infeasible``. A loss that is not finite
    stops every rank with the ids of the utterances.

    Logged: ``train/loss``, and for each evaluation set ``val/<part>/{loss,wer,cer,empty}``, with ``val/wer`` the mean over the
    sets.

    Args:
        recognizer: what is trained; ``robust_asr.checkpoint.load`` starts from a checkpoint.
        seed: keys every random draw; linked to ``seed_everything`` on the command line.
        lr_interval: whether the learning-rate schedule counts optimiser steps or epochs.
        search: how evaluation searches, where the recogniser's own greedy search shall not be used.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        seed: int = 0,
        lr_interval: Literal["step", "epoch"] = "epoch",
        search: Decoder | None = None,
    ) -> None:
        super().__init__()
        self.recognizer = recognizer
        if search is not None:
            use_decoder(recognizer, search)
        self.seed = seed
        self.lr_interval = lr_interval
        self._reported_infeasible: set[str] = set()

    @property
    def sample_rate(self) -> int:
        return self.recognizer.sample_rate

    def perturb(self, batch: AudioBatch) -> AudioBatch:
        """The training batch as the recogniser shall hear it; an objective with augmentation overrides it."""
        return batch

    def on_fit_start(self) -> None:
        # A checkpoint is loaded in evaluation mode, and what is trained must be in training mode whatever it came from.
        self.recognizer.train()
        if hasattr(self.recognizer, "estimate_language") and not self.recognizer.knows_language:
            self.recognizer.estimate_language(self.trainer.datamodule.training_texts())

    def on_train_batch_start(self, batch: AudioBatch, batch_idx: int) -> None:
        reseed_global(self.seed, self.global_rank, self.current_epoch, batch_idx)

    def training_step(self, batch: AudioBatch, batch_idx: int) -> Tensor:
        batch = self.perturb(batch)
        targets = self.recognizer.targets(batch.texts)
        losses = self.recognizer.loss(batch.waveforms, batch.lengths, targets)
        feasible = self.recognizer.feasible(batch.lengths, targets)
        self._report_infeasible(batch, feasible)
        loss, num_infeasible = self.averaged(losses, feasible, batch, batch_idx)
        self.log("train/infeasible", num_infeasible, batch_size=len(batch))
        return loss

    def averaged(self, losses: Tensor, counted: Tensor, batch: AudioBatch, batch_idx: int) -> tuple[Tensor, float]:
        """The loss to differentiate, the mean over what counts of the global batch, and how many of it do not count.

        Logged: ``train/loss``.

        Shape: losses (B,), counted (B,) bool -> ().
        Errors: FloatingPointError, on every rank, with the ids of all ranks whose loss counts and is not finite.
        """
        broken = counted & ~losses.detach().isfinite()
        total, num_used, num_broken, num_left_out = sum_over_ranks(
            losses.detach()[counted].sum(), counted.sum(), broken.sum(), (~counted).sum()
        )
        if num_broken:
            ids = [utterance for utterance, flag in zip(batch.ids, broken.tolist(), strict=True) if flag]
            raise FloatingPointError(
                f"the loss is not finite in epoch {self.current_epoch}, batch {batch_idx}, for {gather_text(ids)}; "
                "the last checkpoint holds the weights before it"
            )
        num_used = max(num_used, 1.0)
        self.log("train/loss", total / num_used, prog_bar=True, batch_size=len(batch))
        # DDP averages gradients over ranks: with this factor the result is the mean over the global batch.
        return losses[counted].sum() * (self.trainer.world_size / num_used), num_left_out

    def _report_infeasible(self, batch: AudioBatch, feasible: Tensor) -> None:
        if bool(feasible.all()):
            return
        for row in (~feasible).nonzero()[:, 0].tolist():
            utterance = batch.ids[row]
            if utterance not in self._reported_infeasible:
                self._reported_infeasible.add(utterance)
                print(
                    f"left out of the loss: utterance {utterance} has a text of {len(batch.texts[row])} characters, more than its "
                    f"{int(batch.lengths[row])} samples can carry"
                )

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation()

    def validation_step(self, batch: AudioBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        return self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation()

    def _start_evaluation(self) -> None:
        self._names = self.trainer.datamodule.dataloader_names("validate")
        self._error_rates = [ErrorRates().to(self.device) for _ in self._names]
        self._loss_sums = torch.zeros(len(self._names), 2, dtype=torch.float64)

    def _evaluate(self, batch: AudioBatch, dataloader_idx: int) -> dict[str, Any]:
        # Where ranks outnumber the last batches the others get an empty one, so that all step equally often.
        if not len(batch):
            return {"batch": batch, "transcripts": []}
        losses = self.recognizer.loss(batch.waveforms, batch.lengths, self.recognizer.targets(batch.texts))
        losses = losses[losses.isfinite()]
        self._loss_sums[dataloader_idx] += torch.tensor([losses.double().sum().item(), len(losses)])
        transcripts = self.recognizer.transcribe(batch.waveforms, batch.lengths)
        self._error_rates[dataloader_idx].update(list(batch.texts), [transcript.text for transcript in transcripts])
        return {"batch": batch, "transcripts": transcripts}

    def _log_evaluation(self) -> None:
        rates = []
        for name, metric, sums in zip(self._names, self._error_rates, self._loss_sums, strict=True):
            loss, count = sum_over_ranks(*sums.to(self.device))
            rates.append({key: float(value) for key, value in metric.compute().items()})
            values = {"loss": loss / max(count, 1), "empty": rates[-1]["empty_hypotheses"]}
            values |= {key: rates[-1][key] for key in ("wer", "cer")}
            self.log_dict({f"val/{name}/{key}": value for key, value in values.items()})
        self.log("val/wer", sum(part["wer"] for part in rates) / len(rates), prog_bar=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_matches(checkpoint, self.recognizer, "ckpt_path")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(metadata(self.recognizer))

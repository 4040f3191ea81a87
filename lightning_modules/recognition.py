"""Recognition: minimise the loss of the reference text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_modules.callbacks.samples import DashboardSamples
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.distributed import gather_text, sum_over_ranks
from lightning_modules.loggers.csv_logger import RunCSVLogger
from lightning_modules.writable import check_writable
from robust_asr.checkpoint import RECOGNIZER, check_matches, metadata
from robust_asr.gradients import hold
from robust_asr.metrics import ErrorRates
from robust_asr.models.base import Recognizer
from robust_asr.randomness import reseed_global
from robust_asr.search.base import Search
from robust_asr.text.terminal import say
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
        search: takes the place of the recogniser's own search.
        max_gradient_norm: longer gradients are scaled down to it; null leaves all as they are. ``trainer.gradient_clip_val``
            takes its place where it is set, 0 included.

    Errors: ValueError where ``max_gradient_norm`` is not positive.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        seed: int = 0,
        lr_interval: Literal["step", "epoch"] = "epoch",
        search: Search | None = None,
        max_gradient_norm: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.recognizer = recognizer
        if search is not None:
            recognizer.use_search(search)
        if max_gradient_norm is not None and not 0 < max_gradient_norm < float("inf"):
            raise ValueError(f"max_gradient_norm must be positive and finite, or null, found {max_gradient_norm}")
        self.seed = seed
        self.lr_interval = lr_interval
        self.max_gradient_norm = max_gradient_norm
        self._reported_infeasible: set[str] = set()

    @property
    def parts(self) -> dict[str, str]:
        """What ``robust_asr.checkpoint.load_part`` finds in a checkpoint: name -> submodule."""
        return {RECOGNIZER: "recognizer"}

    @property
    def sample_rate(self) -> int:
        return self.recognizer.sample_rate

    def perturb(self, batch: AudioBatch) -> AudioBatch:
        """The training batch with what an objective adds to its audio; augmentation and attacks override it."""
        return batch

    def logged_names(self) -> set[str]:
        """What is logged and may be watched, by a schedule or a checkpoint; an objective that logs more overrides it."""
        names = {"train/loss", "train/infeasible"}
        parts = self.trainer.datamodule.dataloader_names("validate")
        names |= {f"val/{part}/{key}" for part in parts for key in ("loss", "wer", "cer", "empty")}
        return names | ({"val/wer"} if parts else set())

    @property
    def held(self) -> list[nn.Module]:
        """Modules that do not learn, and through which gradients flow; an objective that has some overrides it."""
        return []

    @property
    def rates(self) -> list[tuple[nn.Module, float]]:
        """Modules with a constant learning rate of their own; an objective that has some overrides it."""
        return []

    def setup(self, stage: str) -> None:
        # DDP is wrapped around the module after this hook, and must not wait for gradients that never come.
        if stage == "fit":
            self._hold()

    def _hold(self) -> None:
        for module in self.held:
            hold(module)

    def configure_callbacks(self) -> list[pl.Callback]:
        """What watches a recogniser learn, unless ``trainer.callbacks`` holds one of its class with other settings."""
        if self.trainer.state.fn != "fit":
            return []
        watching: list[pl.Callback] = [Throughput()]
        if any(isinstance(logger, RunCSVLogger) for logger in self.trainer.loggers):
            # Its pages lie in the run folder, which only a run of the command line has.
            watching.append(DashboardSamples())
        return [new for new in watching if not any(isinstance(own, type(new)) for own in self.trainer.callbacks)]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        bound = self.max_gradient_norm if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, bound, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        # A checkpoint is loaded in evaluation mode, and what is trained must be in training mode whatever it came from.
        self.recognizer.train()
        self._hold()
        # Lightning warns of modules in evaluation mode; those that an objective holds are meant to be in it.
        warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode.*")
        data = getattr(self.trainer, "datamodule", None)
        # Data of a user's own need not know its texts beforehand.
        if hasattr(data, "texts"):
            check_writable(self.recognizer, data.texts("fit"))
        self.recognizer.prepare(self._training_texts())

    def _training_texts(self) -> Iterator[str]:
        # A generator, so that manifests are opened only for a recogniser that reads the texts.
        yield from self.trainer.datamodule.training_texts()

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
        """The loss to differentiate, which is the mean over the counted utterances of the global batch, and the number of others.

        Logged: ``train/loss``.

        Shape: losses (B,), counted (B,) bool -> ().
        Errors: FloatingPointError, on every rank, with the ids on all ranks whose loss is counted and is not finite.
        """
        broken = counted & ~losses.detach().isfinite()
        # Not losses[counted], whose size a GPU would have to tell the host first.
        used = losses.masked_fill(~counted, 0)
        total, num_used, num_broken, num_left_out = sum_over_ranks(
            used.detach().sum(), counted.sum(), broken.sum(), (~counted).sum()
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
        return used.sum() * (self.trainer.world_size / num_used), num_left_out

    def _report_infeasible(self, batch: AudioBatch, feasible: Tensor) -> None:
        if bool(feasible.all()):
            return
        for row in (~feasible).nonzero()[:, 0].tolist():
            utterance = batch.ids[row]
            if utterance not in self._reported_infeasible:
                self._reported_infeasible.add(utterance)
                say(
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
        self._loss_sums = torch.zeros(len(self._names), 3, dtype=torch.float64)

    def _evaluate(self, batch: AudioBatch, dataloader_idx: int) -> dict[str, Any]:
        # Where fewer batches are left than there are ranks, a rank gets an empty one, so that all ranks make as many steps.
        if not len(batch):
            return {"batch": batch, "transcripts": []}
        targets = self.recognizer.targets(batch.texts)
        losses, transcripts = self.recognizer.loss_and_transcripts(batch.waveforms, batch.lengths, targets)
        finite = losses[losses.isfinite()]
        sums = [finite.double().sum().item(), len(finite), len(losses)]
        self._loss_sums[dataloader_idx] += torch.tensor(sums, dtype=torch.float64)
        references = [self.recognizer.compared(text) for text in batch.texts]
        self._error_rates[dataloader_idx].update(references, [transcript.text for transcript in transcripts])
        return {"batch": replace(batch, texts=tuple(references)), "transcripts": transcripts}

    def _log_evaluation(self) -> None:
        rates = []
        for name, metric, sums in zip(self._names, self._error_rates, self._loss_sums, strict=True):
            loss, count, num_heard = sum_over_ranks(*sums.to(self.device))
            rates.append({key: float(value) for key, value in metric.compute().items()})
            # Of texts that do not fit the loss is infinite; where there is nothing else the mean is no number, and not 0.
            mean = loss / count if count else math.nan if num_heard else 0.0
            values = {"loss": mean, "empty": rates[-1]["empty_hypotheses"]}
            values |= {key: rates[-1][key] for key in ("wer", "cer")}
            self.log_dict({f"val/{name}/{key}": value for key, value in values.items()})
        self.log("val/wer", sum(part["wer"] for part in rates) / len(rates), prog_bar=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_matches(checkpoint, {name: self.get_submodule(path) for name, path in self.parts.items()}, "ckpt_path")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(metadata({name: (f"{at}.", self.get_submodule(at)) for name, at in self.parts.items()}))

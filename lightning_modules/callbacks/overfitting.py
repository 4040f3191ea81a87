"""An alarm for catastrophic overfitting of adversarial training (Wong, Rice and Kolter 2020)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn

from robust_asr.attacks.base import Attack
from robust_asr.metrics import ErrorRates
from robust_asr.randomness import utterance_seeds
from robust_asr.types import AudioBatch


class CatastrophicOverfitting(Callback):
    """Stops training when the recogniser has learned to defeat a weak attack instead of resisting a strong one.

    The sign: compared with the validation that was best under the strong attack, its WER has risen by more than ``margin`` while
    that under the single-step attack has fallen. Both attacks meet the first batches of every validation set, with the same
    draws each time.

    Logged: ``val/strong_wer`` and ``val/single_step_wer``.

    Args:
        strong: such as PGD of several steps.
        single_step: such as FGSM, in the same threat model.
        num_batches: of each validation set, on each rank.
        margin: of WER, a fraction: a rise within it is noise.
    """

    def __init__(self, strong: Attack, single_step: Attack, *, num_batches: int = 4, margin: float = 0.05) -> None:
        if num_batches < 1:
            raise ValueError(f"num_batches must be at least 1, found {num_batches}")
        if not 0 <= margin < float("inf"):
            raise ValueError(f"margin must be finite and not negative, found {margin}")
        self.strong, self.single_step = strong, single_step
        self.num_batches, self.margin = num_batches, margin
        self._best: tuple[float, float] | None = None
        self._rates: dict[str, ErrorRates] = {}

    def logged_names(self) -> set[str]:
        return {"val/strong_wer", "val/single_step_wer"}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.datamodule.dataloader_names("validate"):
            raise ValueError("CatastrophicOverfitting looks at validation sets; data.init_args.validate names none")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rates = {name: ErrorRates().to(pl_module.device) for name in ("strong", "single_step")}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: AudioBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx >= self.num_batches or not len(batch):
            return
        seeds = utterance_seeds(0, batch.ids)
        for name, rates in self._rates.items():
            result = getattr(self, name)(pl_module.recognizer, batch, seeds=seeds)
            rates.update(result.compared_references, result.hypotheses)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        strong, single_step = (float(rates.compute()["wer"]) for rates in self._rates.values())
        pl_module.log_dict({"val/strong_wer": strong, "val/single_step_wer": single_step})
        if trainer.sanity_checking:
            return
        if self.is_overfitted(strong, single_step):
            rank_zero_warn(
                f"catastrophic overfitting: WER under {self.strong.name} rose from {self._best[0]:.1%} to {strong:.1%} while under "
                f"{self.single_step.name} it fell from {self._best[1]:.1%} to {single_step:.1%}; training stops"
            )
            trainer.should_stop = True
        elif self._best is None or strong < self._best[0]:
            self._best = (strong, single_step)

    def is_overfitted(self, strong: float, single_step: float) -> bool:
        """Whether these rates, after the best so far, are the sign."""
        return self._best is not None and strong > self._best[0] + self.margin and single_step < self._best[1]

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self._best) if self._best else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = tuple(state_dict["best"]) if state_dict["best"] else None

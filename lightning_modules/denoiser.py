"""Training a denoiser on pairs of attacked and clean audio (JO22 section 3.3)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from datamodules.attack_pairs import PairedBatch
from lightning_modules.distributed import gather_text, sum_over_ranks
from lightning_modules.held import hold, modes_are_intended
from lightning_modules.recognition import Recognition
from robust_asr.decoding import Decoder
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.losses import MultiResolutionSTFT
from robust_asr.models.base import Recognizer


class DenoiserTraining(Recognition):
    """Teaches a denoiser to give back the clean audio of attacked audio; the data are ``datamodules.attack_pairs.AttackPairs``.

    The loss is the multi-resolution STFT distance, the mean over the utterances of the global batch. The recogniser behind the
    denoiser does not learn: validation says what it hears through the denoiser, and the checkpoint holds both, as one
    recogniser.

    Logged: ``train/loss``, and ``val/...`` as ``Recognition`` does.

    Args:
        recognizer: what the denoiser shall protect.
        denoiser: what is trained.
        loss: between what the denoiser returns and the clean audio.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        denoiser: Denoise,
        loss: MultiResolutionSTFT | None = None,
        seed: int = 0,
        lr_interval: Literal["step", "epoch"] = "epoch",
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__(Defended(denoiser, recognizer), seed=seed, lr_interval=lr_interval, decoder=decoder)
        self.loss = loss if loss is not None else MultiResolutionSTFT()
        hold(self.recognizer.recognizer)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        hold(self.recognizer.recognizer)
        modes_are_intended()

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        if not isinstance(batch, PairedBatch):
            raise ValueError(
                f"data must yield pairs, as datamodules.attack_pairs.AttackPairs does, found {type(batch).__name__}"
            )
        denoised, _ = self.recognizer.defense(batch.waveforms, batch.lengths)
        losses = self.loss(denoised, batch.clean, batch.lengths)
        broken = ~losses.detach().isfinite()
        total, num_used, num_broken = sum_over_ranks(
            losses.detach().sum(), batch.lengths.new_tensor(len(batch)), broken.sum()
        )
        if num_broken:
            ids = [utterance for utterance, flag in zip(batch.ids, broken.tolist(), strict=True) if flag]
            raise FloatingPointError(
                f"the loss is not finite in epoch {self.current_epoch}, batch {batch_idx}, for {gather_text(ids)}; "
                "the last checkpoint holds the weights before it"
            )
        self.log("train/loss", total / num_used, prog_bar=True, batch_size=len(batch))
        # DDP averages gradients over ranks: with this factor the result is the mean over the global batch.
        return losses.sum() * (self.trainer.world_size / num_used)

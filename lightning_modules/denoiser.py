"""Training a denoiser on pairs of attacked and clean audio (JO22 section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.held import hold, modes_are_intended
from lightning_modules.recognition import Recognition
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.losses import MultiResolutionSTFT
from robust_asr.models.base import Recognizer
from robust_asr.search.greedy import Decoder
from robust_asr.types import PairedBatch


class DenoiserTraining(Recognition):
    """Teaches a denoiser to give back the clean audio of attacked audio; the data are ``datamodules.AttackPairs``.

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
        search: Decoder | None = None,
    ) -> None:
        super().__init__(Defended(denoiser, recognizer), seed=seed, lr_interval=lr_interval, search=search)
        self.loss = loss if loss is not None else MultiResolutionSTFT()
        hold(self.recognizer.recognizer)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        hold(self.recognizer.recognizer)
        modes_are_intended()

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        if not isinstance(batch, PairedBatch):
            raise ValueError(f"data must yield pairs, as datamodules.AttackPairs does, found {type(batch).__name__}")
        denoised, _ = self.recognizer.defense(batch.waveforms, batch.lengths)
        losses = self.loss(denoised, batch.clean, batch.lengths)
        loss, _ = self.averaged(losses, torch.ones_like(losses, dtype=torch.bool), batch, batch_idx)
        return loss

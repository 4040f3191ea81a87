"""Training a denoiser on pairs of attacked and clean audio (JO22, DENOISER)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.recognition import Recognition
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.losses import MultiResolutionSTFT
from robust_asr.models.base import Recognizer
from robust_asr.types import PairedBatch


class DenoiserTraining(Recognition):
    """Teaches a denoiser to give back the clean audio of attacked audio; the data are ``datamodules.AttackPairs``.

    The loss is the multi-resolution STFT distance, the mean over the utterances of the global batch. The recogniser behind the
    denoiser does not learn, and validation measures what it hears through the denoiser. The checkpoint holds the denoiser
    (``robust_asr.checkpoint.load_defense``), and both as one recogniser.

    Logged: ``train/loss``, and ``val/...`` as ``Recognition`` does.

    Args:
        recognizer: the recogniser behind the denoiser.
        denoiser: what is trained.
        loss: between what the denoiser returns and the clean audio.
        recognition: the other arguments of ``Recognition``.

    Errors: ValueError, before the first step, where the network has taps that reach beyond the crops of the data.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        denoiser: Denoise,
        loss: MultiResolutionSTFT | None = None,
        **recognition: Any,
    ) -> None:
        super().__init__(Defended(denoiser, recognizer), **recognition)
        self.loss = loss if loss is not None else MultiResolutionSTFT()

    @property
    def parts(self) -> dict[str, str]:
        return {**super().parts, "denoiser": "recognizer.defense"}

    @property
    def held(self) -> list[nn.Module]:
        return [self.recognizer.recognizer]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        crop = getattr(self.trainer.datamodule, "crop_seconds", None)
        reach = getattr(self.recognizer.defense.network, "reach", 0) / self.sample_rate
        if stage == "fit" and crop is not None and reach >= crop:
            raise ValueError(
                f"data.crop_seconds is {crop:g} s, and a layer of the denoiser reaches {reach:.3g} s to either side: its outer "
                f"weights would never be trained, and would act on longer audio. Take crops longer than {reach:.3g} s (null: "
                "whole utterances), or fewer layers in a stack of model.denoiser.network"
            )

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        if not isinstance(batch, PairedBatch):
            raise ValueError(f"data must yield pairs, as datamodules.AttackPairs does, found {type(batch).__name__}")
        denoised, _ = self.recognizer.defense(batch.waveforms, batch.lengths)
        losses = self.loss(denoised, batch.clean, batch.lengths)
        loss, _ = self.averaged(losses, torch.ones_like(losses, dtype=torch.bool), batch, batch_idx)
        return loss

"""Adversarial fine-tuning of a denoiser and the recogniser behind it (JO22, ADV-FINETUNE-JOINT)."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lightning_modules.adversarial import AdversarialFinetuning
from robust_asr.attacks.base import Attack
from robust_asr.defenses.base import Defended, Defense
from robust_asr.gradients import use_checkpointing
from robust_asr.models.base import Recognizer


class JointDenoiserASR(AdversarialFinetuning):
    """Adversarial fine-tuning of the tandem: the attack goes through the denoiser and the recogniser as they are now.

    Both learn (ADV-FINETUNE-JOINT); or the recogniser is held (ADV-FINETUNE-JOINT-ASRfrozen): then its weights do not change,
    and the denoiser learns from gradients that flow through it.

    Args:
        recognizer: the tandem, such as the checkpoint of ``DenoiserTraining``; or, with ``denoiser``, the recogniser behind it.
        denoiser: a trained defence that is put in front of ``recognizer``: ``robust_asr.checkpoint.load_defense``.
        hold_recognizer: whether only the denoiser learns.
        denoiser_lr: the learning rate of the denoiser, beside that of the optimiser for everything else. JO22 takes a tenth of
            what each part was trained with, and these differ: on LibriSpeech 1e-4 and 1.2e-5. Null: one rate for both.
        checkpointing: compute the inside of the denoiser's blocks again for each gradient instead of keeping it: a third more
            time, a fraction of the memory.
        adversarial: the other arguments of ``AdversarialFinetuning``.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        attack: Attack,
        denoiser: Defense | None = None,
        hold_recognizer: bool = False,
        denoiser_lr: float | None = None,
        checkpointing: bool = True,
        **adversarial: Any,
    ) -> None:
        tandem = joined(denoiser, recognizer)
        super().__init__(tandem, attack=attack, **adversarial)
        if denoiser_lr is not None and not 0 < denoiser_lr < math.inf:
            raise ValueError(f"denoiser_lr must be positive and finite, or null, found {denoiser_lr}")
        self.hold_recognizer, self.denoiser_lr = hold_recognizer, denoiser_lr
        use_checkpointing(tandem, checkpointing=checkpointing)

    @property
    def parts(self) -> dict[str, str]:
        return {**super().parts, "denoiser": "recognizer.defense"}

    @property
    def rates(self) -> list[tuple[nn.Module, float]]:
        return [] if self.denoiser_lr is None else [(self.recognizer.defense, self.denoiser_lr)]

    @property
    def held(self) -> list[nn.Module]:
        return [self.recognizer.recognizer] if self.hold_recognizer else []


def joined(denoiser: Defense | None, recognizer: Recognizer) -> Defended:
    """The tandem: ``recognizer`` itself, or the trained defence in front of it.

    Errors: ValueError where there is no defence with parameters in front, or two.
    """
    has_own = isinstance(recognizer, Defended) and _learns(recognizer.defense)
    if denoiser is None:
        if not has_own:
            raise ValueError("recognizer: has no denoiser in front; name a checkpoint that holds one under denoiser")
        return recognizer
    if not _learns(denoiser):
        raise ValueError("denoiser: has no weights to learn; lightning_modules.denoiser.DenoiserTraining trains one")
    if has_own:
        raise ValueError("recognizer: has a denoiser of its own; leave denoiser out, or name the recogniser without it")
    return Defended(denoiser, recognizer)


def _learns(defense: Defense) -> bool:
    return any(True for _ in defense.parameters())

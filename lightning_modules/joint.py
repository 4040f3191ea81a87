"""Adversarial fine-tuning of a denoiser and the recogniser behind it (JO22 section 3.5)."""

from __future__ import annotations

from typing import Literal

from lightning_modules.adversarial import AdversarialFinetuning
from lightning_modules.held import hold
from robust_asr.attacks.base import Attack
from robust_asr.defenses.base import Defended, Defense
from robust_asr.models.base import Recognizer
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.search.greedy import Decoder


class JointDenoiserASR(AdversarialFinetuning):
    """Adversarial fine-tuning of the tandem: the attack goes through the denoiser and the recogniser as they are now.

    Both learn (ADV-FINETUNE-JOINT); or the recogniser is held (ADV-FINETUNE-JOINT-ASRfrozen): then its weights do not change,
    and the denoiser learns from gradients that flow through it.

    Args:
        recognizer: the tandem, such as the checkpoint of ``DenoiserTraining``; or, with ``denoiser``, what stands behind it.
        denoiser: a checkpoint of a tandem, whose denoiser is put in front of ``recognizer``.
        hold_recognizer: whether only the denoiser learns.
        checkpointing: compute the inside of the denoiser's blocks again for each gradient instead of keeping it: a third more
            time, a fraction of the memory.

    The other arguments are those of ``AdversarialFinetuning``.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        attack: Attack,
        denoiser: Recognizer | None = None,
        hold_recognizer: bool = False,
        checkpointing: bool = True,
        clean_share: float = 0.0,
        seed: int = 0,
        lr_interval: Literal["step", "epoch"] = "epoch",
        search: Decoder | None = None,
    ) -> None:
        tandem = joined(denoiser, recognizer)
        super().__init__(
            tandem, attack=attack, clean_share=clean_share, seed=seed, lr_interval=lr_interval, search=search
        )
        self.hold_recognizer = hold_recognizer
        for module in tandem.modules():
            if isinstance(module, ConvTasNet):
                module.checkpointing = checkpointing
        if hold_recognizer:
            hold(tandem.recognizer)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hold_recognizer:
            hold(self.recognizer.recognizer)


def joined(denoiser: Recognizer | None, recognizer: Recognizer) -> Defended:
    """The tandem: ``recognizer`` itself, or the trained defence of ``denoiser`` in front of it.

    Errors: ValueError where there is no defence with parameters in front, or two.
    """
    if denoiser is None:
        if not isinstance(recognizer, Defended) or not _learns(recognizer.defense):
            raise ValueError("recognizer: has no denoiser in front; name a checkpoint that holds one under denoiser")
        return recognizer
    if not isinstance(denoiser, Defended) or not _learns(denoiser.defense):
        raise ValueError("denoiser: has no denoiser in front; lightning_modules.denoiser.DenoiserTraining trains one")
    if isinstance(recognizer, Defended) and _learns(recognizer.defense):
        raise ValueError("recognizer: has a denoiser of its own; leave denoiser out, or name the recogniser without it")
    return Defended(denoiser.defense, recognizer)


def _learns(defense: Defense) -> bool:
    return any(True for _ in defense.parameters())

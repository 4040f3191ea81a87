"""Adversarial fine-tuning: the recogniser learns from attacks on what it is now (JO22, ADV-FINETUNE-ASR)."""

from __future__ import annotations

import time
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info

from lightning_modules.distributed import wait_for_ranks
from lightning_modules.recognition import Recognition
from robust_asr.attacks.base import Attack
from robust_asr.gradients import freeze_batch_norm
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, derive, keyed_uniform, utterance_seeds
from robust_asr.types import AudioBatch


class AdversarialFinetuning(Recognition):
    """Recognition on attacked audio: the weights minimise the loss that the attack maximises (Madry et al. 2018, equation 2.1).

    JO22: PGD-7 in the maximum norm, eps log-uniform from [1e-4, 0.02] (``robust_asr.threat.ranges.LinfRange``), untargeted,
    adversarial audio only, a tenth of the learning rate. A small model breaks far below that range:
    configs/scale/an4.yaml has another.

    The attack sees the recogniser in evaluation mode, and the update keeps BatchNorm in that mode too: the statistics of the
    model that is attacked, evaluated and deployed are those of the checkpoint that training starts from. Dropout and SpecAugment
    are on in the update. Everything random in an attack is keyed by (seed, utterance, epoch).

    Logged: ``time/cost_ratio``, how many epochs without attacks an epoch costs.

    Args:
        recognizer: what is attacked and trained, with the defences in front of it if any.
        attack: a value of ``robust_asr.attacks``; a drawn radius is drawn anew in each epoch.
        clean_share: share of the utterances of an epoch that are trained on without an attack.
        recognition: the other arguments of ``Recognition``.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        attack: Attack,
        clean_share: float = 0.0,
        **recognition: Any,
    ) -> None:
        super().__init__(recognizer, **recognition)
        if not 0 <= clean_share < 1:
            raise ValueError(f"clean_share must lie in [0, 1), found {clean_share}: at 1 there is nothing to attack")
        self.attack = attack
        self.clean_share = clean_share
        self._seconds = {"attack": 0.0, "step": 0.0}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        freeze_batch_norm(self.recognizer)

    def perturb(self, batch: AudioBatch) -> AudioBatch:
        start = self._now()
        seeds = utterance_seeds(self.seed, batch.ids, step=self.current_epoch)
        rows = (keyed_uniform(derive(seeds, draw=Key.CLEAN_OR_ATTACKED)) >= self.clean_share).nonzero()[:, 0]
        if len(rows):
            part = batch.select(rows)
            attack = self.attack.of_epoch(seed=self.seed, epoch=self.current_epoch)
            attacked = attack.generate(self.recognizer, part, seeds=seeds[rows]).waveforms
            waveforms = batch.waveforms.clone()
            waveforms[rows.to(waveforms.device), : attacked.shape[1]] = attacked
            batch = batch.replace(waveforms)
        # All ranks update together, so what one rank waits for the attack of another is time of the attack.
        wait_for_ranks()
        self._seconds["attack"] += self._now() - start
        return batch

    def on_train_batch_start(self, batch: AudioBatch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self._step_start = self._now()

    def on_train_batch_end(self, outputs: Any, batch: AudioBatch, batch_idx: int) -> None:
        self._seconds["step"] += self._now() - self._step_start
        self.log("time/cost_ratio", self.cost_ratio, batch_size=1)

    def on_train_end(self) -> None:
        rank_zero_info(f"an epoch with {self.attack.name} cost {self.cost_ratio:.2f} clean epochs")

    @property
    def cost_ratio(self) -> float:
        """Seconds of all steps since this process began to train, over their seconds without the attacks."""
        clean = self._seconds["step"] - self._seconds["attack"]
        return self._seconds["step"] / clean if clean > 0 else 1.0

    def _now(self) -> float:
        # A GPU works behind the host: without this wait the time of one phase would count as that of the next. The wait is short
        # beside an attack of several passes.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

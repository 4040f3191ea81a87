"""One run of an attack, ours or one of adversarial-robustness-toolbox (ART), and the verdict of the same judge on both.

Legend: B utterances, T samples.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from art.attacks.evasion.imperceptible_asr.imperceptible_asr import PsychoacousticMasker
from torch import Tensor

from benchmarks.art_adapter import Estimator
from benchmarks.art_settings import Setting
from robust_asr.attacks.base import Attack
from robust_asr.attacks.goals import Goal
from robust_asr.attacks.psychoacoustics import MaskingThresholds, masking_excess, masking_thresholds
from robust_asr.attacks.verdict import judge
from robust_asr.gradients import frozen_for_attack
from robust_asr.metrics import count_errors, snr_db
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.types import AudioBatch

# The cost of a backward pass in forward passes, measured on the recognisers of this benchmark.
_BACKWARD = 2


def clock() -> float:
    """Seconds. In one thread without a GPU these are CPU seconds, so that other work on the machine does not count."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


@dataclass(frozen=True)
class Outcome:
    """The result and the cost of an attack. Shape: waveforms (B, T). gradients and forwards count passes of single utterances."""

    waveforms: Tensor
    seconds: float
    gradients: int
    forwards: int

    @property
    def seconds_per_iteration(self) -> float:
        return self.seconds * len(self.waveforms) / self.gradients


@dataclass(frozen=True)
class Verdict:
    """The verdict on one run. Shape: success, snr and the excesses (B,) float64; all but success are nan without a success.

    Attributes:
        wer: the word error rate against the texts that were attacked; low is good for a target, high is good for a reference.
        largest: the largest sample of all perturbations.
        excess: 10 log10(1 + l_theta), see ``psychoacoustics``: how far the perturbation lies above the masking thresholds.
        art_excess: the same above the thresholds of ART's ``PsychoacousticMasker``.
        cost: forward-equivalents for each success.
    """

    success: Tensor
    snr: Tensor
    wer: float
    largest: float
    excess: Tensor
    art_excess: Tensor
    cost: float

    def rank(self, goal: Goal) -> tuple[float, float, float]:
        return float(self.success.mean()), float(self.snr.nanmean().nan_to_num(-torch.inf)), goal.sign * self.wer


def run_ours(attack: Attack, recognizer: Recognizer, batch: AudioBatch, *, size: int) -> Outcome:
    """Run our attack in batches of ``size`` utterances; the result is verified but not judged, as with ART."""
    waveforms, gradients, forwards = batch.waveforms.clone(), 0, 0
    start = clock()
    for rows in torch.arange(len(batch)).split(size):
        part = batch.select(rows)
        made = attack.generate(recognizer, part, seeds=utterance_seeds(0, part.ids))
        waveforms[rows, : made.waveforms.shape[1]] = made.waveforms
        gradients, forwards = gradients + int(made.iterations.sum()), forwards + int(made.forwards.sum())
    return Outcome(waveforms, clock() - start, gradients, forwards)


def run_art(setting: Setting, estimator: Estimator, batch: AudioBatch, texts: tuple[str, ...], *, size: int) -> Outcome:
    waveforms = batch.waveforms.clone()
    gradients, predictions = estimator.gradients, estimator.predictions
    start = clock()
    with frozen_for_attack(estimator.model):
        for rows in torch.arange(len(batch)).split(size):
            part = batch.select(rows)
            made = setting.generate(estimator, part, tuple(texts[row] for row in rows.tolist()))
            for row, length, attacked in zip(rows.tolist(), part.lengths.tolist(), made, strict=True):
                waveforms[row, :length] = torch.from_numpy(np.asarray(attacked[:length], dtype=np.float32))
    seconds = clock() - start
    gradients, predictions = estimator.gradients - gradients, estimator.predictions - predictions
    return Outcome(waveforms, seconds, gradients, gradients + predictions)


def verdict(goal: Goal, recognizer: Recognizer, batch: AudioBatch, texts: tuple[str, ...], outcome: Outcome) -> Verdict:
    """Judge the outcome of a run, ours or ART's, on float32 waveforms."""
    attacked, delta = batch.replace(outcome.waveforms), outcome.waveforms - batch.waveforms
    with frozen_for_attack(recognizer):
        heard = judge(recognizer, attacked, texts, seeds=utterance_seeds(0, batch.ids)).transcripts
    success = torch.tensor(goal.reached(texts, heard)).double()
    rows = zip(batch.waveforms, outcome.waveforms, batch.lengths.tolist(), strict=True)
    snr = torch.tensor([snr_db(clean[:length], other[:length]) for clean, other, length in rows], dtype=torch.float64)
    ours = masking_thresholds(batch.waveforms, batch.lengths, sample_rate=recognizer.sample_rate)
    counts = count_errors(texts, [transcript.text for transcript in heard])
    errors = counts["insertions"] + counts["deletions"] + counts["substitutions"]
    return Verdict(
        success=success,
        snr=snr.where(success > 0, torch.nan),
        wer=errors / counts["reference_words"],
        largest=float(delta.abs().max()),
        excess=_decibels(delta, ours).where(success > 0, torch.nan),
        art_excess=_decibels(delta, art_thresholds(batch, recognizer.sample_rate)).where(success > 0, torch.nan),
        cost=(outcome.forwards + _BACKWARD * outcome.gradients) / max(float(success.sum()), 1e-9),
    )


def art_thresholds(batch: AudioBatch, sample_rate: int) -> MaskingThresholds:
    """The thresholds of ART's ``PsychoacousticMasker``, with the loudest bin of each utterance as ours has it."""
    ours = masking_thresholds(batch.waveforms, batch.lengths, sample_rate=sample_rate)
    masker = PsychoacousticMasker(sample_rate=sample_rate)
    power = torch.zeros_like(ours.power)
    for row, (waveform, length) in enumerate(zip(batch.waveforms.cpu(), batch.lengths.tolist(), strict=True)):
        decibels = torch.from_numpy(masker.calculate_threshold_and_psd_maximum(waveform[:length].numpy())[0]).T
        frames = int(ours.num_frames[row])
        power[row, :frames] = 10 ** (decibels[:frames] / 10)
    return replace(ours, power=power)


def _decibels(delta: Tensor, thresholds: MaskingThresholds) -> Tensor:
    return 10 * torch.log1p(masking_excess(delta, thresholds).double()) / math.log(10)

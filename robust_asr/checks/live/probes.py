"""Live checks of the gradient: is it the slope of the loss? If not, gradients are masked (Athalye et al. 2018).

Legend: B utterances, T samples; x a waveform, g its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from robust_asr.checks.verdicts import Check, Question
from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.randomness import keyed_normal
from robust_asr.types import AudioBatch, Targets

REACHES = Question(
    "the gradient reaches the audio",
    "Without a gradient a gradient attack finds nothing: the system hides its gradient, and its results do not show robustness.",
)
SLOPE = Question(
    "the loss moves as its gradient says",
    "The gradient is not the slope of the loss (some operation detaches, rounds or shatters it), so following it does not help.",
)
# The largest accepted share of audible samples with a gradient of exactly zero. Normally every sample has a gradient, because
# windows overlap and every frame counts; with a hard threshold, a saturated output or a front end that skips audio most have none.
_ZEROS = 0.5
# The sizes of two steps along the gradient, in nats that the loss should change by. The rounding of float32 would hide a smaller
# change, and over a longer step any loss curves. An attack works if one of the two steps keeps its promise.
_STEPS = (0.1, 1.0)
# The gradient is measured where the loss is at least this many nats. On clean audio the loss of a confident recogniser is so
# flat that a step would measure its curvature. White noise raises the loss: the SNRs are tried from the weakest noise to the
# loudest, which a recogniser needs for a single word that it knows well.
_HEIGHT = 1.0
_DECIBELS = (40.0, 30.0, 20.0, 10.0, 0.0, -10.0, -20.0)
# The change of the loss may differ from the promised change by this factor: a loss curves, and the straight-through gradient of
# a codec is only about right. A masked gradient is off by orders of magnitude or has a random sign.
_FACTOR = 4.0


@dataclass(frozen=True)
class Probe:
    """The measurements on one utterance.

    Attributes:
        finite: whether its gradient is finite.
        zeros: the share of its audible samples with a gradient of exactly zero.
        kept: the change of the loss over the change that the gradient promises; nan without a usable gradient.
    """

    finite: bool
    zeros: float
    kept: float


def check_gradient(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> list[Check]:
    """Check the gradient of the attacker's view of a frozen system, each utterance alone. Shape: seeds (B,)."""
    if not len(batch):
        return [question.not_run("no utterance has audio for its text") for question in (REACHES, SLOPE)]
    probes = [_probe(recognizer, batch.select([row]), texts[row], seeds[row : row + 1]) for row in range(len(batch))]
    return [_reaches(probes), _slope(probes)]


def _reaches(probes: Sequence[Probe]) -> Check:
    if not all(probe.finite for probe in probes):
        return REACHES.verdict(False, "the gradient of an utterance is not finite", value="nan")
    zeros = max(probe.zeros for probe in probes)
    evidence = f"the gradient is exactly zero on at most {100 * zeros:.3g} % of the samples of an utterance"
    return REACHES.verdict(zeros <= _ZEROS, evidence, value=100 * zeros)


def _slope(probes: Sequence[Probe]) -> Check:
    measured = [probe.kept for probe in probes if probe.kept == probe.kept]
    if not measured:
        return SLOPE.not_run("there is no gradient to follow")
    kept = median(measured)
    evidence = f"a step along the gradient changes the loss by {kept:.3g} times the promised change"
    return SLOPE.verdict(1 / _FACTOR <= kept <= _FACTOR, evidence, value=kept)


def _probe(recognizer: Recognizer, one: AudioBatch, text: str, seeds: Tensor) -> Probe:
    targets = recognizer.targets([text])
    gradient = _gradient(recognizer, one, targets, seeds)
    audible = one.waveforms != 0
    zeros = float(((gradient == 0) & audible).sum() / audible.sum().clamp(min=1))
    higher = _higher(recognizer, one, targets, seeds)
    slope = _gradient(recognizer, higher, targets, seeds).double()
    finite = bool(gradient.isfinite().all() & slope.isfinite().all())
    usable = finite and bool(slope.any())
    return Probe(finite, zeros, _kept(recognizer, higher, targets, seeds, slope) if usable else torch.nan)


def _gradient(recognizer: Recognizer, one: AudioBatch, targets: Targets, seeds: Tensor) -> Tensor:
    return input_gradient(partial(_losses, recognizer, one, targets, seeds), one.waveforms)[1]


def _losses(recognizer: Recognizer, one: AudioBatch, targets: Targets, seeds: Tensor, waveforms: Tensor) -> Tensor:
    """The losses of several versions of one utterance, on the same draw. Shape: (B, T) -> (B,)."""
    num = len(waveforms)
    return recognizer.loss(waveforms, one.lengths.repeat(num), targets.repeat(num), seeds=seeds.repeat(num))


def _higher(recognizer: Recognizer, one: AudioBatch, targets: Targets, seeds: Tensor) -> AudioBatch:
    """The utterance with the weakest noise that raises its loss to ``_HEIGHT``, or with the loudest noise if none does."""
    noise = keyed_normal(seeds, one.lengths, one.waveforms.shape[1], device=one.waveforms.device)
    noise = noise * (one.waveforms.square().sum() / noise.square().sum()).sqrt()
    scales = torch.tensor([0.0, *(10 ** (-decibels / 20) for decibels in _DECIBELS)], device=noise.device)
    versions = one.waveforms + scales[:, None] * noise
    with torch.no_grad():
        high = (_losses(recognizer, one, targets, seeds, versions) >= _HEIGHT).tolist()
    chosen = high.index(True) if True in high else len(high) - 1
    return one.replace(versions[chosen : chosen + 1].to(one.waveforms.dtype))


def _kept(recognizer: Recognizer, one: AudioBatch, targets: Targets, seeds: Tensor, gradient: Tensor) -> float:
    """The change of the loss from x - h g to x + h g over the change that g promises; of the two steps, the ratio closest to 1."""
    steps = torch.tensor(_STEPS, device=gradient.device, dtype=gradient.dtype)
    moves = (steps / (2 * gradient.square().sum()))[:, None] * gradient
    sides = torch.cat([one.waveforms + moves, one.waveforms - moves]).to(one.waveforms.dtype)
    with torch.no_grad():
        higher, lower = _losses(recognizer, one, targets, seeds, sides).double().chunk(2)
    # The promise is computed from the two waveforms as float32 rounded them, not from the exact step.
    ahead, behind = sides.double().chunk(2)
    promised = ((ahead - behind) * gradient).sum(1)
    return min(((higher - lower) / promised).tolist(), key=_distance)


def _distance(kept: float) -> float:
    """The distance of a ratio from 1, on a logarithmic scale: 2 is as far from 1 as 1/2."""
    return abs(math.log(kept)) if 0 < kept < math.inf else math.inf

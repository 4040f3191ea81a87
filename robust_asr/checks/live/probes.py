"""Live: is the gradient that an attack follows the slope of the loss. Gradient masking (Athalye et al. 2018), looked for directly.

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
    "A gradient attack cannot find what has no gradient: the system is masked, and its numbers are not robustness.",
)
SLOPE = Question(
    "the loss moves as its gradient says",
    "The gradient is not the slope of the loss - detached, rounded or shattered on the way - so the attack follows nothing.",
)
# Samples that are not silent have a gradient: windows overlap and every frame counts. A hard threshold, a saturated
# output or a front end that skips audio leaves most of them without.
_ZEROS = 0.5
# Steps along the gradient for which it promises so many nats: below, float32 drowns the change; above, any loss bends. What
# an attack needs is that one of the two holds.
_STEPS = (0.1, 1.0)
# Where it is measured the loss is at least a nat: a confident recogniser has hardly a slope on clean audio, and what is
# found there is the curvature. White noise at these SNRs leads away from it; a single word that is known well needs the loudest.
_HEIGHT = 1.0
_DECIBELS = (40.0, 30.0, 20.0, 10.0, 0.0, -10.0, -20.0)
# By so much a promise may be missed: a loss bends, and a codec's stand-in gradient is about right. A masked one is off
# by orders of magnitude, or has no sign.
_FACTOR = 4.0


@dataclass(frozen=True)
class Probe:
    """Of one utterance.

    Attributes:
        finite: its gradient.
        zeros: the share of its audible samples without a gradient.
        kept: how much of the change that the gradient promises comes true; nan where there is none.
    """

    finite: bool
    zeros: float
    kept: float


def check_gradient(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> list[Check]:
    """On what the attacker sees of a frozen system, each utterance alone. Shape: seeds (B,)."""
    if not len(batch):
        return [question.not_run("no utterance has audio for its text") for question in (REACHES, SLOPE)]
    probes = [_probe(recognizer, batch.select([row]), texts[row], seeds[row : row + 1]) for row in range(len(batch))]
    return [_reaches(probes), _slope(probes)]


def _reaches(probes: Sequence[Probe]) -> Check:
    if not all(probe.finite for probe in probes):
        return REACHES.verdict(False, "of an utterance it is not finite", value="nan")
    zeros = max(probe.zeros for probe in probes)
    found = f"it is exactly zero on {100 * zeros:.3g} % of the samples of an utterance, at most"
    return REACHES.verdict(zeros <= _ZEROS, found, value=100 * zeros)


def _slope(probes: Sequence[Probe]) -> Check:
    measured = [probe.kept for probe in probes if probe.kept == probe.kept]
    if not measured:
        return SLOPE.not_run("there is no gradient to follow")
    kept = median(measured)
    found = f"a step along the gradient changes the loss by {kept:.3g} of what it promises"
    return SLOPE.verdict(1 / _FACTOR <= kept <= _FACTOR, found, value=kept)


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
    """Of several versions of one utterance, on the same draw. Shape: (B, T) -> (B,)."""
    num = len(waveforms)
    return recognizer.loss(waveforms, one.lengths.repeat(num), targets.repeat(num), seeds=seeds.repeat(num))


def _higher(recognizer: Recognizer, one: AudioBatch, targets: Targets, seeds: Tensor) -> AudioBatch:
    """The utterance with as little noise as lifts its loss, or with the most."""
    noise = keyed_normal(seeds, one.lengths, one.waveforms.shape[1], device=one.waveforms.device)
    noise = noise * (one.waveforms.square().sum() / noise.square().sum()).sqrt()
    scales = torch.tensor([0.0, *(10 ** (-decibels / 20) for decibels in _DECIBELS)], device=noise.device)
    versions = one.waveforms + scales[:, None] * noise
    with torch.no_grad():
        high = (_losses(recognizer, one, targets, seeds, versions) >= _HEIGHT).tolist()
    chosen = high.index(True) if True in high else len(high) - 1
    return one.replace(versions[chosen : chosen + 1].to(one.waveforms.dtype))


def _kept(recognizer: Recognizer, one: AudioBatch, targets: Targets, seeds: Tensor, gradient: Tensor) -> float:
    """The change of the loss between x - h g and x + h g over g's promise, of the step where it is closest to 1."""
    steps = torch.tensor(_STEPS, device=gradient.device, dtype=gradient.dtype)
    moves = (steps / (2 * gradient.square().sum()))[:, None] * gradient
    sides = torch.cat([one.waveforms + moves, one.waveforms - moves]).to(one.waveforms.dtype)
    with torch.no_grad():
        higher, lower = _losses(recognizer, one, targets, seeds, sides).double().chunk(2)
    # Of what float32 stored of the two waveforms, not of what was asked.
    ahead, behind = sides.double().chunk(2)
    promised = ((ahead - behind) * gradient).sum(1)
    return min(((higher - lower) / promised).tolist(), key=_distance)


def _distance(kept: float) -> float:
    """In logarithm: twice as much is as far as half."""
    return abs(math.log(kept)) if 0 < kept < math.inf else math.inf

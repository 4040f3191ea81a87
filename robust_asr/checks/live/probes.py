"""Live checks of the gradient: is it the slope of the loss? If not, gradients are masked (Athalye et al. 2018).

Legend: B utterances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from robust_asr.checks.live.loudness import EVERYWHERE, check_loudness
from robust_asr.checks.live.points import Point
from robust_asr.checks.verdicts import Check, Question
from robust_asr.models.base import Recognizer
from robust_asr.types import AudioBatch

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
# change, and over a longer step any loss curves. Steps go along the gradient, and along its signs as those of most attacks: where a
# logarithm makes the gradient of soft passages steep, as in Whisper's front end, the loss curves at once along the gradient, of
# which they are nearly all. An attack works if one of the steps keeps its promise.
_STEPS = (0.1, 1.0)
# The change of the loss may differ from the promised change by this factor: a loss curves, and the straight-through gradient of
# a codec is only about right. A masked gradient is off by orders of magnitude or has a random sign.
_FACTOR = 4.0


def check_gradient(
    recognizer: Recognizer,
    batch: AudioBatch,
    texts: Sequence[str],
    *,
    seeds: Tensor,
    everywhere: Check | None = None,
) -> list[Check]:
    """Check the gradient of the attacker's view of a frozen system, each utterance alone. Shape: seeds (B,).

    Args:
        everywhere: the verdict on loud and quiet passages where it is known. It costs the most passes, and what part of the
            audio or of the network has lost its slope does not depend on the text.
    """
    if not len(batch):
        missing = [question.not_run("no utterance has audio for its text") for question in (REACHES, SLOPE, EVERYWHERE)]
        return [*missing[:2], everywhere or missing[2]]
    points = [Point.of(recognizer, batch.select([row]), texts[row], seeds[row : row + 1]) for row in range(len(batch))]
    return [_reaches(points), _slope(points), everywhere or check_loudness(points)]


def _reaches(points: Sequence[Point]) -> Check:
    if not all(point.finite for point in points):
        return REACHES.verdict(False, "the gradient of an utterance is not finite", value="nan")
    zeros = max(map(_zeros, points))
    evidence = f"the gradient is exactly zero on at most {100 * zeros:.3g} % of the samples of an utterance"
    return REACHES.verdict(zeros <= _ZEROS, evidence, value=100 * zeros)


def _zeros(point: Point) -> float:
    """The share of the audible samples with a gradient of exactly zero."""
    audible = point.clean.waveforms != 0
    return float(((point.clean_gradient == 0) & audible).sum() / audible.sum().clamp(min=1))


def _slope(points: Sequence[Point]) -> Check:
    measured = [_kept(point) for point in points if point.finite and bool(point.gradient.any())]
    if not measured:
        return SLOPE.not_run("there is no gradient to follow")
    kept = median(measured)
    evidence = f"a step along the gradient changes the loss by {kept:.3g} times the promised change"
    return SLOPE.verdict(1 / _FACTOR <= kept <= _FACTOR, evidence, value=kept)


def _kept(point: Point) -> float:
    """The change of the loss along the gradient over the promised change; of the steps, the ratio closest to 1."""
    steps = torch.tensor(_STEPS, device=point.gradient.device, dtype=torch.float64)
    directions = torch.cat([point.gradient, point.gradient.sign()])
    slopes = (directions * point.gradient).sum(1)
    changes, promises = point.moved(((steps[:, None] / (2 * slopes))[..., None] * directions).flatten(0, 1))
    return min((changes / promises).tolist(), key=_distance)


def _distance(kept: float) -> float:
    """The distance of a ratio from 1, on a logarithmic scale: 2 is as far from 1 as 1/2."""
    return abs(math.log(kept)) if 0 < kept < math.inf else math.inf

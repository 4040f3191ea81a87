"""Live check of the gradient in loud and in quiet passages: it may be right along itself and still miss most of the audio.

Legend: T samples, N directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.checks.live.points import Point
from robust_asr.checks.verdicts import Check, Question
from robust_asr.masking import masked
from robust_asr.randomness import derive, keyed_normal

EVERYWHERE = Question(
    "the gradient is right in loud and in quiet passages",
    "The slope of a part of the audio or of the network is lost, so an attack hardly uses it and looks weaker than it could be.",
)
# Random directions for each utterance and passage. A step along the gradient itself says nothing of what the gradient leaves
# out; a step in a random direction also moves along that.
_DIRECTIONS = 4
# The levels of the noise below the passage, in dB. At the first, the loss of a recogniser moves by thousandths to hundredths of
# a nat, more than float32 rounds it and less than bends. The others are for coarser arithmetic and for codecs.
_LEVELS = (-75.0, -60.0, -45.0, -30.0)
# The accepted root mean square of the difference between change and promise, over that of the change. Trained recognisers
# have .001 to .05. Without the gradient of loud frames, or of four fifths of the samples, frames or mel bins, it is .3 to 1.3.
_MISSED = 0.3
# The loudness of a sample is that of the audio around it: 20 ms at 16 kHz.
_WINDOW = 321


def check_loudness(points: Sequence[Point]) -> Check:
    """Compare the loss with its gradient along random directions in the louder and in the softer half of each utterance."""
    usable = [point for point in points if point.finite]
    missed = {name: _missed(usable, name == "loud") for name in ("loud", "quiet")}
    measured = {name: share for name, share in missed.items() if share is not None}
    if not measured:
        return EVERYWHERE.not_run("no step in a random direction moves the loss")
    worst = max(measured, key=measured.get)
    evidence = f"in {worst} passages the gradient misses {100 * measured[worst]:.3g} % of the change of the loss"
    return EVERYWHERE.verdict(measured[worst] <= _MISSED, evidence, value=100 * measured[worst])


def _missed(points: Sequence[Point], loud: bool) -> float | None:
    """The share of the change that is not promised, at the level where it is lowest; None where nothing moves the loss."""
    lowest = None
    for decibels in _LEVELS:
        pairs = [point.moved(_moves(point, loud, decibels)) for point in points]
        changes, promises = (
            (torch.cat(values) for values in zip(*pairs, strict=True)) if pairs else (torch.zeros(0),) * 2
        )
        if changes.any():
            share = float(((changes - promises).square().sum() / changes.square().sum()).sqrt())
            lowest = share if lowest is None else min(lowest, share)
            if lowest <= _MISSED:
                break
    return lowest


def _moves(point: Point, loud: bool, decibels: float) -> Tensor:
    """Random directions that follow the loudness of the passage. Shape: (N, T)."""
    waveforms, lengths = point.clean.waveforms, point.clean.lengths
    loudness = functional.avg_pool1d(waveforms.square()[:, None], _WINDOW, 1, _WINDOW // 2)[:, 0].sqrt()
    median = loudness[0, : int(lengths[0])].median()
    passage = masked((loudness >= median) if loud else (loudness < median), lengths)
    seeds = torch.cat([derive(point.seeds, draw=number) for number in range(_DIRECTIONS)])
    noise = keyed_normal(seeds, lengths.repeat(_DIRECTIONS), waveforms.shape[1], device=waveforms.device)
    noise = noise * loudness * passage
    level = 10 ** (decibels / 20) * (point.noisy.waveforms * passage).square().sum().sqrt()
    return noise * level / noise.square().sum(1, keepdim=True).sqrt().clamp(min=torch.finfo(noise.dtype).tiny)

"""Gains that come from emptier transcripts: a system makes fewer errors because it writes less, not because it hears more.

Errors are reference words that were not heard, and inserted words. So a lower WER has two sources: more words heard right, or
fewer words inserted. Under an attack that makes a recogniser babble, one that stays silent gains by the second alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_asr.results import Cell, Evaluation, Row
from robust_asr.results.breaking import without_breaking
from robust_asr.results.intervals import difference_interval
from robust_asr.results.summary import counts, edit_counts

# Points by which the share of empty transcripts, or of deleted words, rises. Smaller rises occur between any two systems.
LEAST_RISE = 5.0
# The share of a gain that is words heard right. A robust system may drop a few words more, and still hears most of its gain.
_HEARD = 0.5


@dataclass(frozen=True)
class Emptier:
    """A gain in WER and the emptier transcripts that come with it. Units: per cent, over the utterances that both have.

    Attributes:
        gain: points of WER below the first system's.
        heard: points of the gain that are words heard right; the others are words no longer inserted.
        empty, deletions: the first system's share, then this one's.
    """

    gain: float
    heard: float
    empty: tuple[float, float]
    deletions: tuple[float, float]

    def sentence(self, baseline: str) -> str:
        return (
            f"{self.gain:.1f} points of WER below {baseline}, with {self.empty[1]:.1f} % empty transcripts "
            f"({self.empty[0]:.1f} % there) and {self.deletions[1]:.1f} % of the words deleted ({self.deletions[0]:.1f} %)"
        )


def emptier_cells(evaluation: Evaluation) -> dict[Cell, Emptier]:
    """The cells whose WER lies below the first system's because less is written, under (system, condition, part)."""
    first, *others = evaluation.systems or [""]
    cells = {}
    for part in evaluation.parts:
        for condition in without_breaking(evaluation.conditions):
            before = evaluation.select(first, condition, part)
            for system in others:
                emptier = emptier_gain(evaluation.select(system, condition, part), before)
                if emptier is not None:
                    cells[system, condition, part] = emptier
    return cells


def emptier_gain(rows: Sequence[Row], before: Sequence[Row]) -> Emptier | None:
    """The gain of ``rows`` over those of the first system; None where there is no gain, or one of words heard right.

    A gain comes from emptier transcripts where the share of empty transcripts or of deleted words is clearly higher, by
    ``LEAST_RISE`` points at least and with a paired 95 % interval above zero, and less than half of the gain are words heard
    right. The shares of one system alone would not do: under a strong attack every transcript may be empty, and a gain of a
    system that is robust may come with some deletions.
    """
    known = {row["id"]: row for row in before}
    rows = [row for row in rows if row["id"] in known]
    before = [known[row["id"]] for row in rows]
    words = counts(rows, "words")
    if not words.sum():
        return None
    sides = (before, rows)
    gain, heard = (
        _points(edit_counts(before) - edit_counts(rows), words),
        _points(_heard(rows) - _heard(before), words),
    )
    empty, deleted = ([_empty(side) for side in sides], [counts(side, "deletions") for side in sides])
    is_emptier = _rises_clearly(*empty, torch.ones_like(words)) or _rises_clearly(*deleted, words)
    if gain <= 0 or heard >= _HEARD * gain or not is_emptier:
        return None
    return Emptier(
        gain,
        heard,
        (100 * float(empty[0].mean()), 100 * float(empty[1].mean())),
        (_points(deleted[0], words), _points(deleted[1], words)),
    )


def _rises_clearly(before: Tensor, after: Tensor, total: Tensor) -> bool:
    rise = after - before
    return _points(rise, total) >= LEAST_RISE and bool(difference_interval(rise, total)[0] > 0)


def _points(counted: Tensor, total: Tensor) -> float:
    return 100 * float(counted.sum() / total.sum())


def _heard(rows: Sequence[Row]) -> Tensor:
    """Reference words heard right. Shape: (N,)."""
    return counts(rows, "words") - counts(rows, "deletions") - counts(rows, "substitutions")


def _empty(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([float(not row["hypothesis"].strip()) for row in rows], dtype=torch.float64)

"""Gains that are none: a system that makes fewer errors because it writes less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from robust_asr.metrics import bootstrap_interval
from robust_asr.report.numbers import rate
from robust_asr.results import Evaluation, Row
from robust_asr.results.summary import word_edits

# Of the utterances, and of the reference words. Smaller rises are found on any two systems.
LEAST_RISE = 5.0


@dataclass(frozen=True)
class Emptier:
    """A gain in WER and the emptier transcripts that come with it. Units: per cent, over the utterances that both have."""

    gain: float
    empty: tuple[float, float]
    deletions: tuple[float, float]

    def sentence(self, baseline: str) -> str:
        return (
            f"{rate(self.gain)} points of WER below {baseline}, with {rate(self.empty[1])} % empty transcripts "
            f"({rate(self.empty[0])} % there) and {rate(self.deletions[1])} % of the words deleted ({rate(self.deletions[0])} %)"
        )


def emptier_cells(evaluation: Evaluation) -> dict[tuple[str, str, str], Emptier]:
    """(part, condition, system) of each cell whose WER lies below the first system's while it writes clearly less.

    Clearly: the share of empty transcripts or of deleted words is higher by ``LEAST_RISE`` points at least, and the paired 95 %
    interval of the rise lies above zero.
    """
    first, *others = evaluation.systems or [""]
    found = {}
    for part in evaluation.parts:
        for condition in evaluation.conditions:
            known = {row["id"]: row for row in evaluation.select(first, condition, part)}
            for system in others:
                rows = [row for row in evaluation.select(system, condition, part) if row["id"] in known]
                finding = _emptier(rows, [known[row["id"]] for row in rows])
                if finding is not None:
                    found[part, condition, system] = finding
    return found


def _emptier(rows: Sequence[Row], before: Sequence[Row]) -> Emptier | None:
    words = torch.tensor([row["words"] for row in rows], dtype=torch.float64)
    if not words.sum():
        return None
    gain = float((word_edits(before) - word_edits(rows)).sum() / words.sum())
    sides = [(_empty(side), _deletions(side)) for side in (before, rows)]
    rises = zip(sides[0], sides[1], (torch.ones_like(words), words), strict=True)
    if gain <= 0 or not any([_clear_rise(*rise) for rise in rises]):
        return None
    shares = [(100 * float(empty.mean()), 100 * float(deleted.sum() / words.sum())) for empty, deleted in sides]
    return Emptier(100 * gain, *zip(*shares, strict=True))


def _clear_rise(before: torch.Tensor, after: torch.Tensor, total: torch.Tensor) -> bool:
    rise = after - before
    if 100 * float(rise.sum() / total.sum()) < LEAST_RISE:
        return False
    return bootstrap_interval(rise, total)[0] > 0


def _empty(rows: Sequence[Row]) -> torch.Tensor:
    return torch.tensor([float(not row["hypothesis"].strip()) for row in rows], dtype=torch.float64)


def _deletions(rows: Sequence[Row]) -> torch.Tensor:
    return torch.tensor([row["deletions"] for row in rows], dtype=torch.float64)

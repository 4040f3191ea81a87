"""Paired comparisons of what attackers reached: the same utterances, and a bootstrap over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from robust_asr.metrics import bootstrap_interval
from robust_asr.results import Row
from robust_asr.types import Status

# A drop smaller than this share of the loss, or than this many nats, is none. Where an attack has converged its last
# iterate keeps swinging around the best one, by some hundredths of the loss; the faults that these comparisons are for
# move it by multiples.
_SHARE, _NATS = 0.02, 0.1
# Of the interval of "is lower": an evaluation makes dozens of comparisons between attacks that are in truth equal.
_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Gain:
    """How much further the attacker's way one loss lies than another, mean over ``n`` utterances, and its interval.

    Units: nats; ``loss`` is the mean of the loss compared with.
    """

    mean: float
    low: float
    high: float
    n: int
    loss: float

    @property
    def is_drop(self) -> bool:
        """Whether it is clearly a loss and no gain."""
        return self.high < 0 and self.mean < -max(_SHARE * self.loss, _NATS)

    @property
    def is_rise(self) -> bool:
        """Whether it is clearly a gain, however small."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.4g} nats [{self.low:.4g}, {self.high:.4g}] on {self.n} utterances"


def gain(rows: Sequence[Row], others: Sequence[Row], *, confidence: float = _CONFIDENCE) -> Gain | None:
    """Of ``rows`` over ``others``, on what was attacked in both with the same text; None where that is nothing.

    A loss is the row's: of the target, which is to fall, or else of the reference, which is to rise.
    """
    known = {row["id"]: row for row in others if _counts(row)}
    pairs = [(row, known[row["id"]]) for row in rows if row["id"] in known and _counts(row)]
    pairs = [(row, other) for row, other in pairs if _text(row) == _text(other)]
    if not pairs:
        return None
    moved = torch.tensor([_sign(row) * (row["loss"] - other["loss"]) for row, other in pairs], dtype=torch.float64)
    low, high = bootstrap_interval(moved, torch.ones_like(moved), confidence=confidence)
    loss = sum(abs(other["loss"]) for _, other in pairs) / len(pairs)
    return Gain(float(moved.mean()), low, high, len(pairs), loss)


def was_attacked(row: Row) -> bool:
    """Whether the attack ran on it: an utterance that it refuses comes back as it was."""
    return row["status"] != Status.REFUSED


def _counts(row: Row) -> bool:
    return row.get("loss") is not None and was_attacked(row)


def _text(row: Row) -> tuple[bool, str]:
    target = row.get("target")
    return (False, row["reference"]) if target is None else (True, target)


def _sign(row: Row) -> int:
    return 1 if row.get("target") is None else -1

"""Paired comparisons of the losses that attackers reached: the same utterances, and an interval over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from robust_asr.results import Row
from robust_asr.results.intervals import mean_interval
from robust_asr.types import Status

# The loss may drop by this share of it, or by this many nats, before the drop counts. The last iterate of an attack that has
# converged swings around the best one by some hundredths of the loss; a fault of the attack moves the loss by multiples.
_SHARE, _NATS = 0.02, 0.1
# The confidence of the interval of a drop: an evaluation compares dozens of pairs of attacks that are equally strong.
_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Gain:
    """The difference of two losses, positive where the first lies further the attacker's way: mean over ``n`` utterances, interval.

    Units: nats; ``loss`` is the mean of the loss compared with.
    """

    mean: float
    low: float
    high: float
    n: int
    loss: float

    @property
    def is_drop(self) -> bool:
        """Whether the attacker clearly lost ground."""
        return self.high < 0 and self.mean < -max(_SHARE * self.loss, _NATS)

    @property
    def is_rise(self) -> bool:
        """Whether the attacker clearly gained ground, however little."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.4g} nats [{self.low:.4g}, {self.high:.4g}] on {self.n} utterances"


def gain(rows: Sequence[Row], others: Sequence[Row], *, confidence: float = _CONFIDENCE) -> Gain | None:
    """The gain of ``rows`` over ``others`` on the utterances attacked in both with the same text; None where there are none.

    A loss is the row's: of the target, which is to fall, or else of the reference, which is to rise.
    """
    known = {row["id"]: row for row in others if _counts(row)}
    pairs = [(row, known[row["id"]]) for row in rows if row["id"] in known and _counts(row)]
    pairs = [(row, other) for row, other in pairs if _text(row) == _text(other)]
    if not pairs:
        return None
    moved = torch.tensor([_sign(row) * (row["loss"] - other["loss"]) for row, other in pairs], dtype=torch.float64)
    low, high = map(float, mean_interval(moved, confidence=confidence))
    loss = sum(abs(other["loss"]) for _, other in pairs) / len(pairs)
    return Gain(float(moved.mean()), low, high, len(pairs), loss)


def was_attacked(row: Row) -> bool:
    """Whether the attack ran on the utterance; one that it refuses comes back as it was."""
    return row["status"] != Status.REFUSED


def _counts(row: Row) -> bool:
    return row.get("loss") is not None and was_attacked(row)


def _text(row: Row) -> tuple[bool, str]:
    target = row.get("target")
    return (False, row["reference"]) if target is None else (True, target)


def _sign(row: Row) -> int:
    return 1 if row.get("target") is None else -1

"""Two evaluations against each other: do their systems hear the same audio alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.results import Evaluation, Row

HEARD_AGAIN = Question(
    "two evaluations hear the same audio alike",
    "The loss is the same and the transcript is not: a search that leaves equal scores in no order writes it by chance, or one"
    " of the two was made by other code.",
)
# The hashes of condition and recording, and the id.
Asked = tuple[str, str, str]
Answers = Mapping[Asked, Row]
# The difference up to which two losses are equal, as a share of the loss, or in nats where the loss is below one. Sums over
# another batch round differently by less; two attacks that took different steps end at losses that differ by more.
_ROOM = 1e-4
# The share of transcripts that rounding alone may change.
_TIPPED = 0.01


def check_agreement(evaluations: Mapping[str, Evaluation]) -> Iterator[tuple[str, Check]]:
    """For every system that two evaluations hold: are transcripts alike where the losses are the same?

    Rows are the same where the hashes of system, condition and recording are.

    Returns: (name of the earlier evaluation, the verdict with the system's name in it).
    """
    answers = {name: _answers(evaluation) for name, evaluation in evaluations.items()}
    for first, second in combinations(evaluations, 2):
        for system, about in evaluations[first].systems.items():
            mine, theirs = (answers[name].get(about["hash"], {}) for name in (first, second))
            alike = [asked for asked in mine.keys() & theirs.keys() if _equal(mine[asked], theirs[asked])]
            if alike:
                yield first, _verdict(system, mine, theirs, alike, second)


def _verdict(system: str, mine: Answers, theirs: Answers, alike: Sequence[Asked], second: str) -> Check:
    apart = [asked for asked in alike if mine[asked]["hypothesis"] != theirs[asked]["hypothesis"]]
    clause = f"{len(apart)} of {len(alike)} transcripts of equal loss are others in {second}"
    clause += f": {some(sorted({name for *_, name in apart}))}" if apart else ""
    share = len(apart) / len(alike)
    return HEARD_AGAIN.verdict(share <= _TIPPED, clause, system=system, value=share)


def _answers(evaluation: Evaluation) -> dict[str, dict[Asked, Row]]:
    """Hash of a system -> its rows, by the hashes of condition and recording and by the id."""
    answers: dict[str, dict[Asked, Row]] = {}
    for row in evaluation.rows:
        hashes = row["hashes"]
        if all(hashes.get(kind) for kind in ("system", "condition", "data")):
            answers.setdefault(hashes["system"], {})[hashes["condition"], hashes["data"], row["id"]] = row
    return answers


def _equal(first: Row, second: Row) -> bool:
    losses = first.get("loss"), second.get("loss")
    known = all(isinstance(loss, int | float) and math.isfinite(loss) for loss in losses)
    return known and abs(losses[0] - losses[1]) <= _ROOM * max(1.0, abs(losses[0]))

"""Did the attack have a gradient to follow."""

from __future__ import annotations

from collections.abc import Iterator

from robust_asr.checks.rows.conditions import cells, conditions_of, of_part
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.results import Evaluation
from robust_asr.types import Status

UNMASKED = Question(
    "the attack's gradient is not masked",
    "Every gradient was zero, so the attack ran and never moved: the number says nothing about robustness.",
)


def check_gradients(evaluation: Evaluation) -> Iterator[Check]:
    """A single utterance fails: a recogniser that hears its audio at all has a gradient there."""
    aimed = {condition.name for condition in conditions_of(evaluation) if condition.is_aimed}
    for system, condition, part, rows in cells(evaluation):
        if condition in aimed:
            masked = [row["id"] for row in rows if row["status"] == Status.MASKED_GRADIENT]
            clause = f"{len(masked)} of {len(rows)} utterances have a masked gradient{of_part(evaluation, part)}"
            clause += f": {some(masked)}" if masked else ""
            yield UNMASKED.verdict(not masked, clause, system=system, condition=condition, value=len(masked))

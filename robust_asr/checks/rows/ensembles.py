"""Is the standard evaluation the strongest attack of its table, and does it need its gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robust_asr.attacks.square import Square
from robust_asr.attacks.standard import Standard
from robust_asr.checks.rows.comparison import was_attacked
from robust_asr.checks.rows.conditions import Condition, conditions_of, of_part
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.metrics import word_edits
from robust_asr.results import Evaluation, Row
from robust_asr.results.intervals import difference_interval

STRONGEST = Question(
    "the standard evaluation is no weaker than another attack of its size",
    "It missed perturbations that are there, so its number is no lower bound on the damage either.",
)
QUERIES = Question(
    "attacks without gradients find no more than those with gradients",
    "The gradients of the system are masked: attacks that follow them say little about it.",
)
_STANDARD = f"{Standard.__module__}.{Standard.__qualname__}"
# An evaluation compares dozens of pairs.
_CONFIDENCE = 0.99
# The share of the attacked utterances whose worst perturbation may come from queries: of few, by chance.
_BY_QUERIES = 0.1


def check_ensembles(evaluation: Evaluation) -> Iterator[Check]:
    conditions = conditions_of(evaluation)
    for standard in (condition for condition in conditions if condition.kind == _STANDARD):
        others = [other for other in conditions if other is not standard and _is_rival(other, standard)]
        for part in evaluation.parts:
            for system in evaluation.systems:
                rows = evaluation.select(system, standard.name, part)
                if rows:
                    yield _queries(rows, system, standard, of_part(evaluation, part))
                for other in others:
                    yield from _compared(rows, evaluation.select(system, other.name, part), system, standard, other)


def _is_rival(other: Condition, standard: Condition) -> bool:
    """Whether an attack may do no more than the standard evaluation: on the same system, in the same ball, for the same goal."""
    same = other.settings.get("threat") == standard.settings.get("threat") and other.is_white_box
    return same and _goal(other) == _goal(standard) and other.kind != _STANDARD


def _goal(condition: Condition) -> object:
    """The class and the settings of the goal; None, which an older record says, is the untargeted one."""
    goal = condition.settings.get("goal")
    return (goal.get("class_path"), str(goal.get("init_args"))) if isinstance(goal, dict) else None


def _compared(
    rows: list[Row], others: list[Row], system: str, standard: Condition, other: Condition
) -> Iterator[Check]:
    known = {row["id"]: row for row in others if was_attacked(row)}
    pairs = [(row, known[row["id"]]) for row in rows if row["id"] in known and was_attacked(row)]
    if not pairs:
        return
    change, words = (
        torch.tensor(counts, dtype=torch.float64)
        for counts in zip(*((_damage(row) - _damage(known), row["words"]) for row, known in pairs), strict=True)
    )
    low, high = (100 * float(limit) for limit in difference_interval(change, words, confidence=_CONFIDENCE))
    mean = 100 * float(change.sum() / words.sum().clamp(min=1))
    evidence = f"{mean:+.3g} points of errors beside {other.name} [{low:.3g}, {high:.3g}] on {len(pairs)} utterances"
    yield STRONGEST.verdict(not high < 0, evidence, system=system, condition=standard.name, value=mean)


def _damage(row: Row) -> int:
    """Word errors; against a target minus those."""
    return word_edits(row) if row.get("target") is None else -row["target_errors"]


def _queries(rows: list[Row], system: str, standard: Condition, where: str) -> Check:
    won = [row["id"] for row in rows if row.get("member") == Square.title and row.get("success")]
    share = len(won) / len(rows)
    evidence = f"queries found the worst perturbation of {len(won)} of {len(rows)} utterances{where}"
    evidence += f": {some(won)}" if won else ""
    return QUERIES.verdict(share <= _BY_QUERIES, evidence, system=system, condition=standard.name, value=share)

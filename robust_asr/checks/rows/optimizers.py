"""Do more iterations, a larger budget and more draws make an attack stronger. Where they make it weaker, the attack is broken."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robust_asr.checks.rows.comparison import gain, was_attacked
from robust_asr.checks.rows.conditions import Condition, cells, conditions_of, of_part
from robust_asr.checks.rows.pairs import Pair, larger_budgets, more_draws, more_iterations, own_noise
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.results import Evaluation, Row
from robust_asr.results.intervals import mean_interval

ITERATIONS = Question(
    "more iterations do not weaken the attack",
    "The optimiser walks away from its goal, so its numbers overstate robustness.",
)
BUDGET = Question(
    "a larger budget does not weaken the attack",
    "Every perturbation of the smaller budget is allowed in the larger one, so the attack fails to find what is there.",
)
SUCCEEDS = Question(
    "a larger budget succeeds no less",
    "What succeeded in the smaller budget is allowed in the larger one, so the attack fails to find what is there.",
)
DRAWS = Question(
    "more draws do not weaken the attack",
    "The gradient over many draws is no better than that of one: it is not their average, or not of this system.",
)
SPENT = Question(
    "the attack spends the draws that it names",
    "It averaged fewer gradients than its name says, against a system that draws anew each time.",
)
# An evaluation compares dozens of pairs.
_CONFIDENCE = 0.99


def check_optimizers(evaluation: Evaluation) -> Iterator[Check]:
    """Only attacks on the system itself are compared: an attack on another system need not grow stronger against this one."""
    white = [condition for condition in conditions_of(evaluation) if condition.is_white_box and condition.settings]
    bounded = [condition for condition in white if condition.wants_loss_alone]
    steppers = [condition for condition in bounded if "num_iterations" in condition.settings]
    yield from _compare(evaluation, ITERATIONS, more_iterations(steppers), steppers, _MISSING_ITERATIONS)
    climbers = [condition for condition in steppers if condition.number("num_iterations") > 1]
    yield from _compare(evaluation, BUDGET, larger_budgets(climbers), climbers, _MISSING_BUDGET)
    yield from _succeed(evaluation, larger_budgets([condition for condition in white if condition.is_bounded]))
    drawers = [condition for condition in bounded if "num_draws" in condition.settings]
    several = any(condition.number("num_draws") > 1 for condition in drawers)
    random = several or any(map(own_noise, evaluation.systems.values()))
    yield from _compare(evaluation, DRAWS, more_draws(drawers), drawers if random else [], _MISSING_DRAWS)
    yield from _spent(evaluation, {condition.name: condition for condition in white})


_MISSING_ITERATIONS = "add a condition that differs from another in num_iterations alone, ten times as many"
_MISSING_BUDGET = "add the same attack at a second strength"
_MISSING_DRAWS = "add the same attack with num_draws 1 and with num_draws 16"


def _compare(
    evaluation: Evaluation, question: Question, pairs: list[Pair], applies: list[Condition], missing: str
) -> Iterator[Check]:
    if applies and not pairs:
        yield question.not_run(missing)
    for weaker, stronger in pairs:
        for part in evaluation.parts:
            for system in evaluation.systems:
                sides = [evaluation.select(system, condition.name, part) for condition in (stronger, weaker)]
                moved = gain(*sides)
                if moved is not None:
                    text = f"against {weaker.name}, the loss moved by {moved}{of_part(evaluation, part)}"
                    where = {"system": system, "condition": stronger.name}
                    yield question.verdict(not moved.is_drop, text, value=moved.mean, **where)


def _succeed(evaluation: Evaluation, pairs: list[Pair]) -> Iterator[Check]:
    """Also of attacks whose loss says little: those that stop at success, keep the most damage or raise another objective."""
    for weaker, stronger in pairs:
        for part in evaluation.parts:
            for system in evaluation.systems:
                known = {row["id"]: row for row in evaluation.select(system, weaker.name, part) if was_attacked(row)}
                rows = [row for row in evaluation.select(system, stronger.name, part) if was_attacked(row)]
                changes = [
                    bool(row.get("success")) - bool(known[row["id"]].get("success"))
                    for row in rows
                    if row["id"] in known
                ]
                if changes:
                    change = torch.tensor(changes, dtype=torch.float64)
                    low, high = (100 * float(limit) for limit in mean_interval(change, confidence=_CONFIDENCE))
                    mean = 100 * float(change.mean())
                    text = f"{mean:+.3g} points of success beside {weaker.name} [{low:.3g}, {high:.3g}]"
                    text += f" on {len(changes)} utterances{of_part(evaluation, part)}"
                    yield SUCCEEDS.verdict(not high < 0, text, system=system, condition=stronger.name, value=mean)


def _spent(evaluation: Evaluation, attacks: dict[str, Condition]) -> Iterator[Check]:
    """By the passes that rows count, for systems that draw: an attack may ask a system without draws only once."""
    for system, name, part, rows in cells(evaluation):
        draws = attacks[name].number("num_draws") if name in attacks else 1
        if draws > 1 and own_noise(evaluation.systems[system]):
            short = [row["id"] for row in rows if row["forwards"] < draws * row["iterations"]]
            text = f"{len(short)} of {len(rows)} utterances had fewer than {draws:g} passes an iteration"
            text += of_part(evaluation, part) + (f": {some(short)}" if short else "")
            yield SPENT.verdict(not short, text, system=system, condition=name, value=_passes(rows))


def _passes(rows: list[Row]) -> float:
    """Passes of an iteration, over all utterances."""
    return sum(row["forwards"] for row in rows) / max(sum(row["iterations"] for row in rows), 1)

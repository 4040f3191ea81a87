"""Attacks that are compared with each other: one attack at several strengths, or with more and more work.

Stricter than the families of ``robust_asr.results.families``: the settings must agree too, not the columns alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from robust_asr.checks.rows.conditions import TUNED, Condition
from robust_asr.results.families import budget

Pair = tuple[Condition, Condition]
Same = Callable[[Condition, Condition], bool]


def strengths(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """The same attack at all its strengths, from the weakest to the strongest."""
    same_attack = _grouped(conditions, lambda first, second: first.is_other_strength_of(second))
    return [sorted(group, key=_budget) for group in same_attack]


def larger_budgets(conditions: Sequence[Condition]) -> list[Pair]:
    """Each attack with the next stronger one: the perturbations of the one are among those of the other."""
    return _neighbours(strengths(conditions), _budget)


def more_iterations(conditions: Sequence[Condition]) -> list[Pair]:
    """Neighbours in the number of iterations, whatever the step."""
    groups = _grouped(conditions, lambda first, second: first.differs_only_in(second, TUNED))
    return _neighbours(groups, lambda condition: condition.number("num_iterations"))


def more_draws(conditions: Sequence[Condition]) -> list[Pair]:
    """Neighbours in the number of draws over which a gradient is averaged."""
    allowed = frozenset({"num_draws", "max_samples"})
    groups = _grouped(conditions, lambda first, second: first.differs_only_in(second, allowed))
    return _neighbours(groups, lambda condition: condition.number("num_draws"))


def own_noise(system: dict[str, Any]) -> float:
    """The standard deviation of the noise that the record of a system says it adds; infinite where it is no number, 0 for none.

    The answers of a system with such noise depend on draws.
    """
    sigma = system["columns"].get("sigma")
    if sigma in (None, "", 0, False):
        return 0.0
    return float(sigma) if isinstance(sigma, int | float) else math.inf


def _budget(condition: Condition) -> float:
    return budget(condition.norm, condition.strength)


def _grouped(conditions: Sequence[Condition], same: Same) -> list[list[Condition]]:
    groups: list[list[Condition]] = []
    for condition in conditions:
        group = next((group for group in groups if same(group[0], condition)), None)
        if group is None:
            groups.append([condition])
        else:
            group.append(condition)
    return groups


def _neighbours(groups: Sequence[list[Condition]], amount: Callable[[Condition], float]) -> list[Pair]:
    ordered = (sorted(group, key=amount) for group in groups)
    return [(low, high) for group in ordered for low, high in pairwise(group) if amount(low) < amount(high)]

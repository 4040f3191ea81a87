"""Attacks that belong together: one attack at several strengths, or with more and more work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from robust_asr.checks.rows.conditions import TUNED, Condition

Pair = tuple[Condition, Condition]
Same = Callable[[Condition, Condition], bool]


def strengths(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """The same attack at all its strengths, from the weakest to the strongest."""
    found = _families(conditions, lambda first, second: first.is_other_strength_of(second))
    return [sorted(family, key=_budget) for family in found]


def larger_budgets(conditions: Sequence[Condition]) -> list[Pair]:
    """Each with the next stronger, of nested sets of perturbations."""
    return _neighbours(strengths(conditions), _budget)


def more_iterations(conditions: Sequence[Condition]) -> list[Pair]:
    """Neighbours in the number of iterations, whatever the step."""
    found = _families(conditions, lambda first, second: first.differs_only_in(second, TUNED))
    return _neighbours(found, lambda condition: condition.number("num_iterations"))


def more_draws(conditions: Sequence[Condition]) -> list[Pair]:
    """Neighbours in the number of draws over which a gradient is averaged."""
    allowed = frozenset({"num_draws", "max_samples"})
    found = _families(conditions, lambda first, second: first.differs_only_in(second, allowed))
    return _neighbours(found, lambda condition: condition.number("num_draws"))


def own_noise(system: dict[str, Any]) -> float:
    """The standard deviation of the noise that the record of a system says it adds; infinite where it is no number, 0 for none.

    What such a system answers depends on draws.
    """
    sigma = system["columns"].get("sigma")
    if sigma in (None, "", 0, False):
        return 0.0
    return float(sigma) if isinstance(sigma, int | float) else math.inf


def _budget(condition: Condition) -> float:
    return -condition.strength if "SNR" in condition.norm else condition.strength


def _families(conditions: Sequence[Condition], same: Same) -> list[list[Condition]]:
    families: list[list[Condition]] = []
    for condition in conditions:
        family = next((family for family in families if same(family[0], condition)), None)
        if family is None:
            families.append([condition])
        else:
            family.append(condition)
    return families


def _neighbours(families: Sequence[list[Condition]], amount: Callable[[Condition], float]) -> list[Pair]:
    ordered = (sorted(family, key=amount) for family in families)
    return [(low, high) for family in ordered for low, high in pairwise(family) if amount(low) < amount(high)]

"""What a model is measured under: clean audio, noise of the attacks' size, untargeted PGD, and a phrase that it shall hear."""

from __future__ import annotations

from dataclasses import replace

from robust_asr.attacks.base import Attack
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.noise import Clean, MatchedNoise
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.audit.scales import Scale
from robust_asr.threat import Linf

# From three 16-bit steps to what is as loud as speech: PGD breaks every published recogniser between the two.
SMALLEST, LARGEST = 1e-4, 3.2e-2
# Neighbouring budgets of the search differ by so much, a factor of about two.
RESOLUTION_DB = 6.3
# PGD of fewer iterations returns its last perturbation; a look at a transcript costs as much as an iteration.
_WORTH_A_LOOK = 20


def search_for(scale: Scale) -> BreakingPoint:
    """The search for the budget at which half of the words are wrong."""
    return BreakingPoint(
        _pgd(LARGEST, scale, scale.search_iterations),
        SMALLEST,
        resolution_db=RESOLUTION_DB,
        comparison_draws=scale.draws,
    )


def conditions_around(eps: float, scale: Scale, *, phrase: str) -> dict[str, Attack]:
    """Conditions by their names in the tables.

    Args:
        eps: the budget at which the model breaks, full-scale amplitude. The phrase has the largest of the budgets around it: to
            say something is harder than to say something else.
    """
    conditions: dict[str, Attack] = {"none": Clean()}
    budgets = [neat(eps * factor) for factor in scale.factors]
    for budget in budgets:
        conditions[f"signs {budget:g}"] = MatchedNoise(Linf(budget), distribution="signs")
    for budget in budgets:
        attack = _pgd(budget, scale, scale.iterations)
        conditions[f"PGD-{scale.iterations} {budget:g}"] = attack
    conditions[f"phrase {budgets[-1]:g}"] = replace(
        _pgd(budgets[-1], scale, scale.targeted_iterations),
        goal=Targeted(PhraseList((phrase,))),
        # The default of a targeted attack.
        objective=None,
    )
    return conditions


def neat(eps: float) -> float:
    """A budget with two digits, at most half of full scale."""
    return min(float(f"{eps:.2g}"), 0.5)


def _pgd(eps: float, scale: Scale, iterations: int) -> PGD:
    return PGD(
        Linf(eps),
        num_iterations=iterations,
        num_draws=scale.draws,
        comparison_draws=scale.draws,
        keep="damage" if iterations >= _WORTH_A_LOOK else "last",
    )

"""How much an audit does: a few minutes of a laptop, or enough to believe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The amount of work, which decides how strong the attacks are and how narrow the intervals.

    Attributes:
        utterances: how many are measured, chosen by a hash of their ids.
        searched: on how many of them the budget is found at which the model breaks.
        iterations: of untargeted PGD, at each budget.
        targeted_iterations: of PGD towards the phrase.
        search_iterations: of PGD at each budget of the search.
        factors: the budgets of untargeted PGD, as multiples of the one that was found.
        draws: the draws of a random system in each iteration, and those on which its perturbations are compared.
        batch_seconds: audio of a batch, padding included; 0 for each utterance alone.
    """

    utterances: int
    searched: int
    iterations: int
    targeted_iterations: int
    search_iterations: int
    factors: tuple[float, ...]
    draws: int
    batch_seconds: float


# PGD of so few iterations is weak, which the report says; the full scale is for numbers to show to others.
QUICK = Scale(
    utterances=10,
    searched=2,
    iterations=4,
    targeted_iterations=6,
    search_iterations=3,
    factors=(1.0, 3.0),
    draws=1,
    batch_seconds=0.0,
)
FULL = Scale(
    utterances=30,
    searched=8,
    iterations=50,
    targeted_iterations=100,
    search_iterations=20,
    factors=(1 / 3, 1.0, 3.0),
    draws=4,
    batch_seconds=60.0,
)

"""What the settings of attacks may be: a ValueError names the first that is out of range, what was found and what is accepted."""

from __future__ import annotations

from robust_asr.attacks.base import Attack
from robust_asr.attacks.objectives import Objective
from robust_asr.randomness import Key
from robust_asr.threat import Ball

# Iterations are keys of random draws, and those of a restart begin after this many.
_MOST = int(Key.RESTART) - 1
# Samples of a pass: more than any memory.
_MOST_SAMPLES = 2**40


def require_ball(attack: Attack) -> None:
    if not isinstance(attack.threat, Ball):
        raise ValueError(f"threat must be a ball such as Linf, L2 or SNR, found {attack.threat}")


def require_objective(attack: Attack, objective: object) -> None:
    """An objective that serves the goal of the attack."""
    if not isinstance(objective, Objective):
        raise ValueError(f"objective must be an object such as {{Loss: {{}}}}, found {objective!r}")
    if attack.goal.targeted and not objective.targeted:
        kind = type(objective).__name__
        raise ValueError(f"objective: {kind} leads away from a text, the goal is targeted: use Loss")


def require_counts(attack: Attack, *names: str, optional: bool = False) -> None:
    """Fields that count iterations, draws, passes or samples. ``optional``: None is accepted too."""
    for name in names:
        value, most = getattr(attack, name), _MOST_SAMPLES if name == "max_samples" else _MOST
        if not (optional and value is None) and not 1 <= value <= most:
            raise ValueError(f"{name} must lie in [1, {most}]{' or be None' if optional else ''}, found {value}")


def require_within(attack: Attack, name: str, holds: bool, accepted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must lie in {accepted}, found {getattr(attack, name)}")

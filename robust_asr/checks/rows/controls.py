"""Attacks against their controls: no attack, and noise of the same size."""

from __future__ import annotations

from collections.abc import Iterator

from robust_asr.checks.rows.comparison import Gain, gain
from robust_asr.checks.rows.conditions import Condition, conditions_of, of_part
from robust_asr.checks.rows.pairs import Pair, own_noise, strengths
from robust_asr.checks.verdicts import Check, Question
from robust_asr.results import Evaluation

MOVES = Question(
    "the attack moves the loss its way",
    "The gradient that it follows does not lead up the loss: it is masked, or of another model.",
)
NOISE = Question(
    "the attack does more than noise of its size",
    "Noise does as much without a gradient, so the gradient is masked or the attack is broken.",
)


def check_controls(evaluation: Evaluation) -> Iterator[Check]:
    conditions = conditions_of(evaluation)
    white = [condition for condition in conditions if condition.is_white_box and condition.is_bounded]
    clean = next((condition for condition in conditions if condition.is_clean), None)
    for part in evaluation.parts:
        attacks = [attack for attack in white if not _is_targeted(evaluation, attack, part)]
        if attacks and clean is None:
            yield MOVES.not_run("the loss without attack is missing: add robust_asr.attacks.noise.Clean")
        for family in strengths(attacks) if clean else ():
            yield from _family(evaluation, MOVES, [(attack, clean) for attack in family], clean, part)
        yield from _noise(evaluation, [attack for attack in attacks if attack.wants_loss_alone], conditions, part)
        if white and not attacks:
            yield NOISE.not_run("noise wants no text: add the untargeted attack, and MatchedNoise of its size")


def _noise(evaluation: Evaluation, attacks: list[Condition], conditions: list[Condition], part: str) -> Iterator[Check]:
    clean = next((condition for condition in conditions if condition.is_clean), None)
    for family in strengths(attacks):
        pairs = [(attack, other) for attack in family for other in conditions if _controls(other, attack)]
        for attack in family:
            if attack not in [matched for matched, _ in pairs]:
                threat = f"{attack.norm} {attack.strength:g}"
                yield NOISE.not_run(f"add robust_asr.attacks.noise.MatchedNoise with the threat model {threat}")
        yield from _family(evaluation, NOISE, pairs, clean, part)


def _controls(noise: Condition, attack: Condition) -> bool:
    return noise.is_noise and noise.size == attack.size


def _family(
    evaluation: Evaluation, question: Question, pairs: list[Pair], clean: Condition | None, part: str
) -> Iterator[Check]:
    """One attack at its strengths, each against a control.

    The check passes where the attack does clearly more than its control at some strength. It fails where an attack of several
    iterations does clearly less at any strength, and where it does more at none. Against a system that adds noise, no budget
    may be large enough to tell: the control does nothing either, and the check is not run.
    """
    for system in evaluation.systems:
        gains = [(gain_of(evaluation, system, *pair, part, confidence=0.95), *pair) for pair in pairs]
        gains = [(moved, attack, control) for moved, attack, control in gains if moved is not None]
        if not gains:
            continue
        worse = [entry for entry in gains if entry[0].is_drop and entry[1].number("num_iterations") > 1]
        moved, attack, control = worse[0] if worse else max(gains, key=lambda entry: (entry[0].is_rise, entry[0].mean))
        where = {"system": system, "condition": attack.name}
        text = f"against {control.name}, the loss moved by {moved}{of_part(evaluation, part)}"
        if not moved.is_rise and not worse and _is_too_small(evaluation, system, pairs, clean, part):
            yield question.not_run(f"{_TOO_SMALL} ({text})", **where)
        else:
            yield question.verdict(moved.is_rise and not worse, text, value=moved.mean, **where)


_TOO_SMALL = (
    "no budget is large enough to tell: next to the system's own noise not even noise matters; add a larger one"
)


def _is_too_small(evaluation: Evaluation, system: str, pairs: list[Pair], clean: Condition | None, part: str) -> bool:
    """Whether every budget lies below the system's own noise, as far as can be known, and even the control does nothing."""
    level = own_noise(evaluation.systems[system])
    if clean is None or any(level <= attack.strength if attack.norm == "Linf" else not level for attack, _ in pairs):
        return False
    gains = [gain_of(evaluation, system, control, clean, part, confidence=0.95) for _, control in pairs]
    return not any(moved is not None and moved.is_rise for moved in gains)


def gain_of(
    evaluation: Evaluation, system: str, first: Condition, second: Condition, part: str, *, confidence: float = 0.99
) -> Gain | None:
    """The gain of the first condition over the second, for one system."""
    rows, others = (evaluation.select(system, condition.name, part) for condition in (first, second))
    return gain(rows, others, confidence=confidence)


def _is_targeted(evaluation: Evaluation, attack: Condition, part: str) -> bool:
    return any(
        row.get("target") is not None
        for system in evaluation.systems
        for row in evaluation.select(system, attack.name, part)
    )

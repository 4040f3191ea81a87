"""Attackers who know more or may perturb more: neither can be weaker than one who knows or may less."""

from __future__ import annotations

from collections.abc import Iterator

from robust_asr.checks.rows.comparison import was_attacked
from robust_asr.checks.rows.conditions import Condition, conditions_of, of_part
from robust_asr.checks.rows.controls import gain_of
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.results import Evaluation
from robust_asr.results.families import budget

KNOWLEDGE = Question(
    "an attacker who knows the system is no weaker than one who does not",
    "Its gradients are worth less than those of another model: they are masked.",
)
UNBOUNDED = Question(
    "an attack without a real bound wins",
    "With nearly any audio allowed every utterance can be changed, so the attack, not the system, decides the numbers.",
)
# The share of utterances that an attack without a real bound changes: a few have no room for a target, or need more iterations.
_NEARLY_ALL = 0.9
_BLIND = ("transfer", "unaware")
_LOUDEST = {"Linf": 0.5, "SNR": 0.0, "SNR (Linf)": 0.0, "peak SNR (Linf)": 0.0}


def check_attackers(evaluation: Evaluation) -> Iterator[Check]:
    conditions = conditions_of(evaluation)
    white = [condition for condition in conditions if condition.is_white_box]
    through = [condition for condition in white if condition.wants_loss_alone]
    for part in evaluation.parts if white else ():
        yield from _knowledge(evaluation, through, conditions, part)
        yield from _unbounded(evaluation, white, part)


def _knowledge(evaluation: Evaluation, white: list[Condition], all_of: list[Condition], part: str) -> Iterator[Check]:
    """The strongest attack that knows the system, against each of the same size that does not."""
    blind = [attack for attack in all_of if attack.is_bounded and attack.columns.get("knowledge") in _BLIND]
    if white and not blind:
        yield KNOWLEDGE.not_run("add a set made against another system (robust_asr.attacks.saved.Saved)")
    for attack in blind:
        rivals = [condition for condition in white if condition.size == attack.size]
        for system in evaluation.systems if rivals else ():
            gains = [(gain_of(evaluation, system, rival, attack, part), rival) for rival in rivals]
            gains = [(gain, rival) for gain, rival in gains if gain is not None]
            if gains:
                gain, rival = max(gains, key=lambda pair: pair[0].mean)
                text = f"{rival.name} moved the loss by {gain} more{of_part(evaluation, part)}"
                where = {"system": system, "condition": attack.name}
                yield KNOWLEDGE.verdict(not gain.is_drop, text, value=gain.mean, **where)
        if not rivals:
            yield KNOWLEDGE.not_run(f"add the white-box attack of the size of {attack.name}")


def _unbounded(evaluation: Evaluation, attacks: list[Condition], part: str) -> Iterator[Check]:
    for system in evaluation.systems:
        rates: dict[str, float] = {}
        for attack in attacks:
            rows = [row for row in evaluation.select(system, attack.name, part) if was_attacked(row)]
            if rows:
                rates[attack.name] = sum(bool(row.get("success")) for row in rows) / len(rows)
        loud = [attack.name for attack in attacks if attack.name in rates and _is_loud(attack)]
        best = max(rates, key=rates.get, default="")
        if not loud and rates.get(best, 0) < _NEARLY_ALL:
            yield UNBOUNDED.not_run(_MISSING, system=system)
        elif rates:
            best = max(loud or [best], key=rates.get)
            text = f"{100 * rates[best]:.1f} % of the utterances{of_part(evaluation, part)}"
            text += f"; tried without a real bound: {some(loud)}" if loud else ""
            yield UNBOUNDED.verdict(
                rates[best] >= _NEARLY_ALL, text, system=system, condition=best, value=100 * rates[best]
            )


_MISSING = "no budget is near-total and no attack reaches nearly all: add one with Linf 1.0 or at an SNR of -20 dB"


def _is_loud(attack: Condition) -> bool:
    """Whether the bound lets the perturbation be as loud as the audio."""
    if attack.strength is None:
        # An attack that draws its budget for each utterance is bounded too, by that budget.
        return attack.norm == "" and (not attack.settings or "num_iterations" in attack.settings)
    bound = _LOUDEST.get(attack.norm)
    return bound is not None and budget(attack.norm, attack.strength) >= budget(attack.norm, bound)

"""Is the perturbation as large as its threat model says: within the bound, near to it, and not zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import median

from robust_asr.attacks.square import Square
from robust_asr.checks.rows.comparison import was_attacked
from robust_asr.checks.rows.conditions import Condition, cells, conditions_of, of_part
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.results import Evaluation, Row
from robust_asr.results.families import is_ratio

WITHIN = Question(
    "perturbations are as large as the table says",
    "The number belongs to another strength than the one that it stands under.",
)
CHANGED = Question(
    "the attack changed the audio",
    "Utterances that were not attacked count as withstood.",
)
USED = Question(
    "the attack uses its budget",
    "It stayed well inside its bound, so a stronger attack of the same size exists: the number is no lower bound on the damage.",
)
# The share of utterances that may stay as they are. Audio without room for the text is rare; if more than one utterance in
# twenty is not attacked, the error rate moves by more than its interval.
_UNCHANGED = 0.05
WHOLE = Question(
    "the attack moves all of the audio",
    "Signs of a gradient move every sample that has one: most of the gradient is lost, and the attack is that of a small part.",
)
# The share of the audible samples that signs of a gradient move at least. A whole gradient moves them all (measured: 1.00).
_LEAST_CHANGED = 0.8
# The share of the radius that an attack uses at least. Steps that fall to zero end on the surface; an attack of half the radius
# is that of another, smaller ball.
_LEAST_USED = 0.8
# The rounding of a size, in full scale: float32 stores x + d to 2^-24 a sample, and a row has eight decimals.
_ROUNDING = {"Linf": 2e-7, "L2": 1e-5}
_RELATIVE, _DECIBELS = 1e-4, 0.01
# Norms whose steepest direction is the signs of the gradient.
_SIGNS = ("Linf", "SNR (Linf)", "peak SNR (Linf)")
_QUERIES = f"{Square.__module__}.{Square.__qualname__}"
# Noise is scaled to the SNR exactly. Samples that leave [-1, 1] are cut off, which above 0 dB happens to few of them.
_NOISE_DECIBELS = 0.5


def check_budgets(evaluation: Evaluation) -> Iterator[Check]:
    conditions = {condition.name: condition for condition in conditions_of(evaluation)}
    for system, name, part, rows in cells(evaluation):
        for check in (_within, _changed, _used, _whole, _within_own):
            finding = check(rows, conditions[name], of_part(evaluation, part))
            if finding is not None:
                question, holds, text, value = finding
                yield question.verdict(holds, text, system=system, condition=name, value=value)


Finding = tuple[Question, bool, str, float]


def _within(rows: list[Row], condition: Condition, where: str) -> Finding | None:
    """The excess over the bound; for noise at an SNR, also the distance by which it stays below its level."""
    excess, rows = _measure(condition), _perturbed(rows)
    if excess is None or condition.strength is None or not rows:
        return None
    above = {row["id"]: excess(row, condition.strength) for row in rows}
    beyond = [name for name, (value, room) in above.items() if value > room]
    worst = max(value for value, _ in above.values())
    bound = f"{condition.strength:g} {'dB' if is_ratio(condition.norm) else 'full scale'}"
    short = -median(value for value, _ in above.values())
    if condition.is_noise and condition.norm == "SNR" and condition.strength >= 0 and short > _NOISE_DECIBELS:
        return WITHIN, False, f"the noise is {short:.3g} dB weaker than the {bound} asked for{where}", worst
    clause = f"{len(beyond)} of {len(rows)} exceed {bound}, the largest by {max(worst, 0):.3g}{where}"
    clause += f": {some(beyond)}" if beyond else ""
    return WITHIN, not beyond, clause, worst


def _within_own(rows: list[Row], condition: Condition, where: str) -> Finding | None:
    """The excess of each perturbation over the budget at which its utterance is said to break."""
    found = [row for row in _perturbed(rows) if row.get("breaking") is not None]
    if not found:
        return None
    excess = {row["id"]: _own_excess(row, condition.norm) for row in found}
    beyond = [name for name, value in excess.items() if value > _DECIBELS]
    worst = max(excess.values())
    clause = f"{len(beyond)} of {len(found)} exceed their breaking point, the largest by {max(worst, 0):.3g} dB{where}"
    clause += f": {some(beyond)}" if beyond else ""
    return WITHIN, not beyond, clause, worst


def _own_excess(row: Row, norm: str) -> float:
    """By the SNR of the perturbation, and in the maximum norm by its largest sample too. Units: dB."""
    over = [row["breaking_snr_db"] - row["snr_db"]] if row.get("breaking_snr_db") is not None else []
    if norm == "Linf":
        over.append(20 * math.log10(max(row["size"] - _ROUNDING[norm], 1e-9) / row["breaking_amplitude"]))
    return max(over, default=0.0)


def _changed(rows: list[Row], condition: Condition, where: str) -> Finding | None:
    if not condition.is_aimed:
        return None
    # Where the goal is reached without a perturbation, an attack leaves the audio alone.
    same = [row for row in rows if row.get("snr_db") is None and not (row.get("success") and was_attacked(row))]
    clause = f"{len(same)} of {len(rows)} utterances are as they were{where}"
    notes = sorted({row["note"] for row in same if row.get("note")})
    clause += f": {some([row['id'] for row in same])}" if same else ""
    clause += f" ({some(notes)})" if notes else ""
    return CHANGED, len(same) <= _UNCHANGED * len(rows), clause, len(same)


def _used(rows: list[Row], condition: Condition, where: str) -> Finding | None:
    """The share of the bound that is used by attacks that raise their objective as far as they can, whatever their steps allow."""
    excess, rows = _measure(condition), _perturbed(rows)
    stops = condition.settings.get("stop_on_success", False)
    if excess is None or condition.strength is None or not rows or not condition.is_white_box or stops:
        return None
    if any(row.get("target") is not None for row in rows):
        return None
    inside = -median(excess(row, condition.strength)[0] for row in rows)
    share = 10 ** (-inside / 20) if is_ratio(condition.norm) else 1 - inside / condition.strength
    clause = f"the median perturbation is {share:.3g} of the bound{where}"
    if _reach(condition) < 1:
        clause += f"; its steps add up to {_reach(condition):.3g} of it"
    return USED, share > _LEAST_USED, clause, share


def _whole(rows: list[Row], condition: Condition, where: str) -> Finding | None:
    """The share of the samples that steps along signs of the gradient moved; queries without a gradient may leave samples alone."""
    shares = [row["changed_samples"] for row in _perturbed(rows) if row.get("changed_samples") is not None]
    follows_signs = condition.norm in _SIGNS and condition.is_white_box and condition.is_bounded
    if not shares or not follows_signs or condition.kind == _QUERIES:
        return None
    share = median(shares)
    clause = f"the median perturbation changes {100 * share:.3g} % of the audible samples{where}"
    return WHOLE, share >= _LEAST_CHANGED, clause, 100 * share


def _reach(condition: Condition) -> float:
    """What constant steps add up to, in radii: fewer than the radius cannot reach the surface of the ball. Else infinite."""
    steps = condition.settings.get("steps")
    if not isinstance(steps, dict) or str(steps.get("class_path", "")).rpartition(".")[2] != "Constant":
        return float("inf")
    factor = (steps.get("init_args") or {}).get("factor")
    factor = factor if isinstance(factor, int | float) else 0.2 if condition.norm == "Linf" else 0.1
    return condition.number("num_iterations", 0) * factor


Measure = Callable[[Row, float], tuple[float, float]]


def _perturbed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.get("snr_db") is not None and row.get("size") is not None]


def _measure(condition: Condition) -> Measure | None:
    """None where the size in a row is of another norm than the bound: of a set played back, it is a Euclidean norm."""
    if condition.columns.get("knowledge") == "transfer" and condition.norm in ("Linf", "peak SNR (Linf)"):
        return None
    return _EXCESS.get(condition.norm)


# Norm -> (how far a row lies beyond the bound, how far it may for rounding), in the unit of the bound.
_EXCESS: dict[str, Measure] = {
    "Linf": lambda row, eps: (row["size"] - eps, _RELATIVE * eps + _ROUNDING["Linf"]),
    "L2": lambda row, eps: (row["size"] - eps, _RELATIVE * eps + _ROUNDING["L2"]),
    "SNR": lambda row, decibels: (decibels - row["snr_db"], _DECIBELS),
    "SNR (Linf)": lambda row, decibels: (decibels - row["snr_db"], _DECIBELS),
    # The size in the row is a ratio of peaks; the ratio of powers may be anything.
    "peak SNR (Linf)": lambda row, decibels: (decibels - row["size"], _DECIBELS),
}

"""Conditions as the checks see them: who aimed, at what size, with which settings. Read from a record, never instantiated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from robust_asr.attacks.objectives import FrameMargin, Insertions, Mixture, TokenMargin
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.results import Evaluation, Row
from robust_asr.results.families import is_clean, number
from robust_asr.results.summary import is_attack
from robust_asr.storage.describe import describe
from robust_asr.threat import Linf

# Settings by which an optimiser may be tuned when it is given more iterations or more draws.
TUNED = frozenset({"num_iterations", "steps", "check_every", "max_samples", "precision"})
_STRENGTHS = frozenset({"eps", "snr_db"})
# Objectives whose rise says nothing of the loss.
_NOT_THE_LOSS = frozenset(kind.__name__ for kind in (FrameMargin, TokenMargin, Insertions, Mixture))
_FGSM, _PGD = "robust_asr.attacks.fgsm.FGSM", "robust_asr.attacks.pgd.PaperPGD"
_ONE_STEP = describe(PaperPGD(Linf(0.0), num_iterations=1, steps=Constant(1.0)))["init_args"]


@dataclass(frozen=True)
class Condition:
    """A condition of an evaluation.

    Attributes:
        settings: empty where the record describes none.
        climbs_own: whether some row's loss, that of the reference, is not what the attack moved: it climbed away from another
            text.
    """

    name: str
    columns: dict[str, Any] = field(repr=False)
    kind: str = ""
    settings: dict[str, Any] = field(default_factory=dict, repr=False)
    climbs_own: bool = False

    @property
    def norm(self) -> str:
        return str(self.columns.get("norm") or "")

    @property
    def strength(self) -> float | None:
        """The strength, None where it is no number."""
        return number(self.columns.get("strength"))

    @property
    def size(self) -> tuple[str, Any, str]:
        """Norm, strength and unit: equal where two conditions perturb within the same bound."""
        return self.norm, self.columns.get("strength"), str(self.columns.get("strength_unit") or "")

    @property
    def is_clean(self) -> bool:
        return is_clean(self.columns)

    @property
    def is_aimed(self) -> bool:
        return is_attack({"columns": self.columns}) and not self.is_clean

    @property
    def is_noise(self) -> bool:
        return not self.is_clean and not is_attack({"columns": self.columns})

    @property
    def is_white_box(self) -> bool:
        """The attacker has the gradient of the system itself, or a stand-in that was made for it."""
        return self.is_aimed and self.columns.get("knowledge") in ("exact", "straight_through")

    @property
    def is_bounded(self) -> bool:
        """Its perturbations lie in a ball, and it does not trade the loss for their size, as Carlini and Wagner's does."""
        return self.strength is not None and self.norm != "" and "bound" not in self.settings

    @property
    def wants_loss_alone(self) -> bool:
        """Whether the loss says how strong the attack is: it is what the attack raises, as far as it can, and what it keeps.

        An attack that stops at success has the loss at which it stopped; one on another objective, or one that keeps the worst
        transcript, may leave the loss lower.
        """
        objective = self.settings.get("objective")
        other = isinstance(objective, dict) and str(objective.get("class_path")).rpartition(".")[2] in _NOT_THE_LOSS
        return self.is_bounded and not (
            other
            or self.climbs_own
            or self.settings.get("stop_on_success", False)
            or self.settings.get("keep") == "damage"
        )

    def number(self, name: str, default: float = 1) -> float:
        """A setting that is a number."""
        value = self.settings.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else default

    def differs_only_in(self, other: Condition, allowed: frozenset[str]) -> bool:
        """Whether nothing but the allowed settings tells the two attacks apart."""
        mine, theirs = (
            {name: value for name, value in condition.settings.items() if name not in allowed}
            for condition in (self, other)
        )
        return bool(self.settings) and self.kind == other.kind and mine == theirs

    def is_other_strength_of(self, other: Condition) -> bool:
        """Whether nothing but the radius of the ball tells the two attacks apart."""
        same = self._threat == other._threat and self._threat is not None and self.norm == other.norm
        return same and self.differs_only_in(other, frozenset({"threat", "max_samples"}))

    @property
    def _threat(self) -> dict[str, Any] | None:
        """The threat model without its radius."""
        threat = self.settings.get("threat")
        if not isinstance(threat, dict) or not isinstance(threat.get("init_args"), dict):
            return None
        rest = {name: value for name, value in threat["init_args"].items() if name not in _STRENGTHS}
        return {**threat, "init_args": rest}


def conditions_of(evaluation: Evaluation) -> list[Condition]:
    climbing = {row["condition"] for row in evaluation.rows if (row.get("climbed") or "reference") != "reference"}
    return [
        replace(_condition(name, about), climbs_own=name in climbing) for name, about in evaluation.conditions.items()
    ]


def cells(evaluation: Evaluation) -> Iterator[tuple[str, str, str, list[Row]]]:
    """(system, condition, part, rows) of every cell that has rows."""
    for part in evaluation.parts:
        for condition in evaluation.conditions:
            for system in evaluation.systems:
                rows = evaluation.select(system, condition, part)
                if rows:
                    yield system, condition, part, rows


def of_part(evaluation: Evaluation, part: str) -> str:
    """A clause that names the part, where there are several parts."""
    return f", in part {part}" if len(evaluation.parts) > 1 else ""


def _condition(name: str, about: dict[str, Any]) -> Condition:
    description = about.get("description")
    description = description if isinstance(description, dict) else {}
    kind, settings = description.get("class_path"), description.get("init_args")
    if not isinstance(kind, str) or not isinstance(settings, dict):
        return Condition(name, about["columns"])
    # FGSM is PGD of one step, so the two are one attack with more and fewer iterations.
    return Condition(
        name, about["columns"], *((_PGD, {**_ONE_STEP, **settings}) if kind == _FGSM else (kind, settings))
    )

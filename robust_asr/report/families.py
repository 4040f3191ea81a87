"""Conditions that differ in strength alone: one attack, one norm, one unit, one state of the attacker's knowledge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robust_asr.report.numbers import strength

_NORMS = {"Linf": "L\N{INFINITY}", "L2": "L\N{SUBSCRIPT TWO}"}
_KNOWLEDGE = {
    "": "",
    "exact": "",
    "straight_through": " (straight-through gradients)",
    "unaware": " (attacker unaware of the defence)",
}


@dataclass(frozen=True)
class Point:
    """A condition and its strength, None where that is no number. ``label`` is the strength as it is shown."""

    condition: str
    strength: float | None
    label: str


@dataclass(frozen=True)
class Family:
    """``points`` go from the weakest to the strongest."""

    attack: str
    norm: str
    unit: str
    knowledge: str
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """In words, without the strength."""
        knows = _KNOWLEDGE.get(self.knowledge, f" (attacker's knowledge: {self.knowledge})")
        return f"{self.attack or 'no attack named'}{knows}"

    def label(self, point: Point) -> str:
        """A condition in words, for a place that has no head of a column."""
        norm = _NORMS.get(self.norm, self.norm)
        unit = self.unit if self.unit in ("dB", "%") else ""
        return f"{self.title}, {' '.join(part for part in (norm, point.label, unit) if part)}"

    @property
    def scale(self) -> str:
        """What the strengths count."""
        return ", ".join(part for part in (_NORMS.get(self.norm, self.norm), self.unit) if part)

    @property
    def graded(self) -> bool:
        """Whether a plot against the strength says anything."""
        return len({point.strength for point in self.points if point.strength is not None}) > 1

    @property
    def falls(self) -> bool:
        """Whether a larger number is a weaker attack."""
        return self.norm == "SNR"


def is_clean(columns: Mapping[str, Any]) -> bool:
    """Whether the audio stays as it is: no attack, or one of strength zero. An SNR of 0 dB is no such thing."""
    return columns.get("attack") in (None, "", "none") or (
        columns.get("norm") != "SNR" and number(columns.get("strength")) == 0
    )


def families(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Family, ...]:
    """All conditions but clean audio, in the order in which their families appear."""
    groups: dict[tuple[str, ...], list[Point]] = {}
    for name, about in conditions.items():
        columns = about["columns"]
        if is_clean(columns):
            continue
        texts = tuple(str(columns.get(field) or "") for field in ("attack", "norm", "strength_unit", "knowledge"))
        value = columns.get("strength")
        size = number(value)
        label = name if value in (None, "") else strength(size if size is not None else value)
        groups.setdefault(texts, []).append(Point(name, size, label))
    return tuple(Family(*texts, points=_weakest_first(texts[1], points)) for texts, points in groups.items())


def clean_conditions(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """``none`` before strengths of zero."""
    clean = [name for name, about in conditions.items() if is_clean(about["columns"])]
    return sorted(clean, key=lambda name: conditions[name]["columns"].get("attack") not in (None, "", "none"))


def number(value: Any) -> float | None:
    """A strength as a number, None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _weakest_first(norm: str, points: list[Point]) -> tuple[Point, ...]:
    sign = -1 if norm == "SNR" else 1
    return tuple(sorted(points, key=lambda point: math.inf if point.strength is None else sign * point.strength))

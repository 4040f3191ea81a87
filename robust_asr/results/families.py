"""Conditions as their columns tell them apart: which are clean audio, which is the stronger, and which differ in strength alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NO_ATTACK = (None, "", "none")


@dataclass(frozen=True)
class Point:
    """A condition of a family. ``value`` is its strength as the column has it, ``strength`` None where that is no number."""

    condition: str
    strength: float | None
    value: Any = None


@dataclass(frozen=True)
class Family:
    """Conditions of one attack, norm, unit and knowledge of the attacker. ``points`` go from the weakest to the strongest."""

    attack: str
    norm: str
    unit: str
    knowledge: str
    points: tuple[Point, ...]

    @property
    def graded(self) -> bool:
        """Whether a plot against the strength says anything."""
        return len({point.strength for point in self.points if point.strength is not None}) > 1

    @property
    def falls(self) -> bool:
        """Whether a larger number is a weaker attack."""
        return is_ratio(self.norm)


def families(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Family, ...]:
    """All conditions but clean audio, in the order in which their families appear. ``conditions`` are an evaluation's."""
    groups: dict[tuple[str, ...], list[Point]] = {}
    for name, about in conditions.items():
        columns = about["columns"]
        if not is_clean(columns):
            texts = tuple(str(columns.get(field) or "") for field in ("attack", "norm", "strength_unit", "knowledge"))
            value = columns.get("strength")
            groups.setdefault(texts, []).append(Point(name, number(value), value))
    return tuple(Family(*texts, points=_weakest_first(texts[1], points)) for texts, points in groups.items())


def clean_conditions(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the conditions that leave the audio as it is: those without an attack before attacks of strength zero."""
    clean = [name for name, about in conditions.items() if is_clean(about["columns"])]
    return sorted(clean, key=lambda name: conditions[name]["columns"].get("attack") not in _NO_ATTACK)


def is_clean(columns: Mapping[str, Any]) -> bool:
    """Whether the audio stays as it is: no attack, or one of strength zero. A ratio of 0 dB is as much noise as speech."""
    if columns.get("attack") in _NO_ATTACK:
        return True
    return not is_ratio(columns.get("norm")) and number(columns.get("strength")) == 0


def is_ratio(norm: Any) -> bool:
    """Whether strengths of a norm are signal-to-noise ratios, of power or of peaks: the larger, the weaker the attack."""
    return "SNR" in str(norm)


def budget(norm: Any, strength: float) -> float:
    """A number that rises with what the attacker is allowed; comparable between conditions of one norm."""
    return -strength if is_ratio(norm) else strength


def number(value: Any) -> float | None:
    """A strength as a number; None for a word, a text without digits, and what is not finite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        converted = float(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return converted if math.isfinite(converted) else None


def _weakest_first(norm: str, points: list[Point]) -> tuple[Point, ...]:
    def place(point: Point) -> float:
        return math.inf if point.strength is None else budget(norm, point.strength)

    return tuple(sorted(points, key=place))

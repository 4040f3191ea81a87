"""Conditions and families of them in words."""

from __future__ import annotations

from robust_asr.report.numbers import strength
from robust_asr.results.families import Family, Point

_NORMS = {"Linf": "L\N{INFINITY}", "L2": "L\N{SUBSCRIPT TWO}"}
_KNOWLEDGE = {
    "": "",
    "exact": "",
    "straight_through": " (straight-through gradients)",
    "unaware": " (attacker unaware of the defence)",
}


def title(family: Family) -> str:
    """A family without its strengths."""
    knows = _KNOWLEDGE.get(family.knowledge, f" (attacker's knowledge: {family.knowledge})")
    return f"{family.attack or 'no attack named'}{knows}"


def scale(family: Family) -> str:
    """The norm and the unit of its strengths."""
    return ", ".join(part for part in (norm_of(family), family.unit) if part)


def norm_of(family: Family) -> str:
    return _NORMS.get(family.norm, family.norm)


def label(family: Family, point: Point) -> str:
    """A condition, for a place that has no head of a column."""
    unit = family.unit if family.unit in ("dB", "%") else ""
    return f"{title(family)}, {' '.join(part for part in (norm_of(family), strength_of(point), unit) if part)}"


def strength_of(point: Point) -> str:
    """The strength as it is shown; the name of the condition where the record has none."""
    if point.value in (None, ""):
        return point.condition
    return strength(point.value if point.strength is None else point.strength)

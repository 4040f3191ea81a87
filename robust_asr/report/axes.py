"""Axes of plots: from values to places on the page, and where the ticks stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Width of a character of 11 units, and the least room between two labels.
_CHARACTER, _ROOM = 6.6, 7.0


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` onto places from ``start`` to ``end``; ``low`` may be the larger one."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(number) if self.logarithmic else number for number in (self.low, self.high, value))
        share = (at - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.end - self.start)


def nice_top(largest: float, *, ticks: int = 5) -> tuple[float, float]:
    """A round number that is not below ``largest``, and the step to it from zero: 1, 2, 2.5 or 5 times a power of ten."""
    if largest <= 0 or not math.isfinite(largest):
        return 1.0, 0.5
    power = 10.0 ** math.floor(math.log10(largest / ticks))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * ticks >= largest * (1 - 1e-9))
    return step * math.ceil(largest / step - 1e-9), step


def span(low: float, high: float, *, ticks: int = 4) -> tuple[float, float, float]:
    """Round numbers around an interval that holds zero, and the step between them."""
    _, step = nice_top(max(high - low, 1e-9), ticks=ticks)
    return step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9), step


def steps(low: float, high: float, step: float) -> list[float]:
    return [low + index * step for index in range(round((high - low) / step) + 1)]


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether strengths span so much that a linear axis would crowd the small ones."""
    return min(values) > 0 and max(values) >= 20 * min(values)


def without_collisions(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The labels (centre, text) that fit beside each other: the first and the last, then from left to right."""
    kept: list[tuple[float, str]] = []
    for place, text in [*labels[:1], *labels[-1:], *labels[1:-1]]:
        if all(abs(place - other) >= (len(text) + len(shown)) / 2 * _CHARACTER + _ROOM for other, shown in kept):
            kept.append((place, text))
    return sorted(kept)

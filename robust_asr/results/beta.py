"""Quantiles of the beta distribution and of Student's, which neither torch nor NumPy has."""

from __future__ import annotations

import math
from functools import cache

_TINY = 1e-300
_PRECISION = 1e-15
_MAX_TERMS = 100_000


@cache
def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x at which the beta distribution of parameters a and b > 0 reaches a probability in (0, 1), by bisection."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if beta_distribution(middle, a, b) < probability else (low, middle)


@cache
def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's distribution; ``freedom`` are its degrees of freedom, a positive number."""
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    # T^2 / (freedom + T^2) has a beta distribution.
    share = beta_quantile(2 * probability - 1, 0.5, freedom / 2)
    return math.sqrt(freedom * share / (1 - share))


def beta_distribution(x: float, a: float, b: float) -> float:
    """The share of the beta distribution below x: the regularised incomplete beta function (DLMF 8.17.22, Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_distribution(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 / (1 + d1 / (1 + d2 / (1 + ...)))."""
    numerator, denominator = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / _away_from_zero(1 + term * denominator)
            numerator = _away_from_zero(1 + term / numerator)
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < _PRECISION:
            return value
    raise ArithmeticError(f"the beta distribution of {a} and {b} was not computed in {_MAX_TERMS} terms")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

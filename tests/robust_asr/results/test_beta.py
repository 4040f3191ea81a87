"""Quantiles against closed forms, sums of binomials and an integral of the density."""

from __future__ import annotations

import math

import pytest

from robust_asr.results.beta import beta_distribution, beta_quantile, student_quantile


@pytest.mark.parametrize("probability", [0.005, 0.3, 0.5, 0.9, 0.975, 0.995])
def test_student_of_one_and_two_degrees_of_freedom_has_a_closed_form(probability: float) -> None:
    assert student_quantile(probability, 1) == pytest.approx(
        math.tan(math.pi * (probability - 0.5)), rel=1e-9, abs=1e-12
    )
    odds = 4 * probability * (1 - probability)
    expected = 2 * (probability - 0.5) * math.sqrt(2 / odds)
    assert student_quantile(probability, 2) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("freedom", [3, 15, 59, 2619])
def test_the_density_below_students_quantile_is_the_probability(freedom: int) -> None:
    quantile, steps = student_quantile(0.975, freedom), 20_000
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    density = [
        math.exp(scale - (freedom + 1) / 2 * math.log1p((quantile * i / steps) ** 2 / freedom))
        for i in range(steps + 1)
    ]
    assert quantile * (sum(density) - (density[0] + density[-1]) / 2) / steps == pytest.approx(0.475, abs=1e-8)


@pytest.mark.parametrize(("count", "total"), [(1, 1), (1, 16), (8, 16), (16, 16), (3, 200), (1300, 2620)])
def test_the_beta_distribution_is_a_sum_of_binomials(count: int, total: int) -> None:
    """Below x: the chance of at least ``count`` successes of ``total`` at a rate x."""
    x = count / (total + 1)
    chance = math.fsum(
        math.exp(math.log(math.comb(total, i)) + i * math.log(x) + (total - i) * math.log1p(-x))
        for i in range(count, total + 1)
    )
    assert beta_distribution(x, count, total - count + 1) == pytest.approx(chance, rel=1e-9)
    assert beta_quantile(chance, count, total - count + 1) == pytest.approx(x, rel=1e-9)

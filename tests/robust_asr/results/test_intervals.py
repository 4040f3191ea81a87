"""Intervals against textbook values, sums of binomials, a bootstrap, and the share of samples in which they hold the truth."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.coverage import POPULATIONS, covered, seeds_covered
from robust_asr.results.intervals import (
    difference_interval,
    in_batches,
    mean_interval,
    rate_interval,
    seed_mean_interval,
    share_interval,
)


@pytest.mark.parametrize(
    ("count", "total", "limits"),
    [
        (0, 16, (0, 0.2059)),
        (16, 16, (0.7941, 1)),
        (1, 1, (0.025, 1)),
        (8, 16, (0.2465, 0.7535)),
        (5, 100, (0.0164, 0.1128)),
    ],
)
def test_clopper_and_pearson(count: int, total: int, limits: tuple[float, float]) -> None:
    assert share_interval(count, total) == pytest.approx(limits, abs=5e-5)


def test_a_share_at_its_limits_has_the_chance_that_was_asked_for() -> None:
    low, high = share_interval(3, 20, confidence=0.9)
    chances = [[math.comb(20, i) * p**i * (1 - p) ** (20 - i) for i in range(21)] for p in (low, high)]
    assert sum(chances[0][3:]) == pytest.approx(0.05) and sum(chances[1][:4]) == pytest.approx(0.05)


def test_symmetric_values_have_students_interval() -> None:
    """1, 2, 3, 4, 5: mean 3, standard error sqrt(.5), t(4) = 2.776."""
    assert mean_interval(torch.tensor([1.0, 2, 3, 4, 5])) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)


def test_skewed_values_reach_farther_on_the_side_of_their_tail() -> None:
    values = torch.tensor([0.0] * 12 + [1, 1, 2, 8])
    low, high = mean_interval(values)
    half = 2.1314 * float(values.std()) / 4
    assert low == pytest.approx(0.75 - half, abs=1e-3) and high > 0.75 + 1.5 * half


def test_the_correction_is_halls() -> None:
    """At the upper limit the transform of the studentised error is minus Student's quantile."""
    values = torch.tensor([0.0] * 12 + [1, 1, 2, 8], dtype=torch.float64)
    _, high = mean_interval(values)
    deviations = values - values.mean()
    skewness = float((deviations**3).mean() / (deviations**2).mean() ** 1.5)
    t = float((values.mean() - high) / (values.std() / 4))
    transform = t + skewness / 12 * t**2 + skewness**2 / 432 * t**3 + skewness / 24
    assert transform == pytest.approx(-2.13145, abs=1e-4)


def test_many_utterances_have_the_interval_of_a_bootstrap() -> None:
    """Of 2,000 utterances the percentiles of resampled rates, within a hundredth of the rate."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(1, 20, (2000,), generator=generator).double()
    errors = torch.poisson(words * torch.rand(2000, generator=generator).double() ** 3, generator=generator)
    picked = torch.randint(2000, (4000, 2000), generator=generator)
    rates = errors[picked].sum(1) / words[picked].sum(1)
    expected = rates.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    assert rate_interval(errors, words) == pytest.approx(expected.tolist(), abs=0.002)


def test_without_an_error_unseen_utterances_may_have_all_words_wrong() -> None:
    words = torch.tensor([3.0, 7, 1, 5] * 4)
    assert rate_interval(0 * words, words) == pytest.approx((0, 0.2059), abs=5e-5)
    assert rate_interval(words, words, most=1) == pytest.approx((0.7941, 1), abs=5e-5)
    assert difference_interval(0 * words, words) == pytest.approx((-0.2059, 0.2059), abs=5e-5)
    assert rate_interval(torch.tensor([1.0]), torch.tensor([4.0])) == pytest.approx((0, 1.225), abs=5e-4)


def test_few_utterances_with_an_error_may_be_more() -> None:
    """One of 16 errs, in 2 of 5 words: at most 30.2 per cent do, so 12.1 per cent of the words."""
    errors, words = torch.zeros(16), torch.full((16,), 5.0)
    errors[3] = 2
    low, high = rate_interval(errors, words)
    assert low == 0 and high >= 0.302 * 0.4


def test_measured_values_that_are_equal_have_a_point_and_a_single_one_has_no_limits() -> None:
    assert mean_interval(torch.tensor([20.1] * 5)) == pytest.approx((20.1, 20.1))
    assert mean_interval(torch.tensor([20.1])) == (-math.inf, math.inf)


def test_cells_of_a_batch_are_independent() -> None:
    errors = torch.tensor([[1.0, 0, 2], [0, 0, 0], [3, 2, 1]])
    words = torch.tensor([[4.0, 5, 6], [1, 2, 3], [4, 5, 6]])
    low, high = rate_interval(errors, words)
    each = [rate_interval(*cell) for cell in zip(errors, words, strict=True)]
    assert low.tolist() == [float(a) for a, _ in each] and high.tolist() == [float(b) for _, b in each]


def test_cells_of_any_size_have_the_limits_that_each_has_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_asr.results.intervals._BATCH", 10)
    cells = [(torch.arange(num).double(), torch.full((num,), 4.0).double()) for num in (3, 5, 3, 4, 3, 3, 3)]
    assert in_batches(rate_interval, cells) == [tuple(map(float, rate_interval(*cell))) for cell in cells]


def test_wrong_arguments() -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match="one count an utterance"):
        rate_interval(one, torch.ones(2))
    with pytest.raises(ValueError, match="one number an utterance"):
        mean_interval(torch.ones(0))
    with pytest.raises(ValueError, match="needs a word"):
        rate_interval(one, 0 * one)
    with pytest.raises(ValueError, match="confidence must lie in"):
        mean_interval(torch.ones(2), confidence=1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        share_interval(3, 2)


def test_seeds_and_utterances_add_in_squares() -> None:
    """Three trainings of AN4: 14.10, 12.81 and 9.83 per cent. Student's interval over them alone is [6.8, 17.7]."""
    words = torch.full((130,), 1000.0)
    errors = words * torch.tensor([0.1410, 0.1281, 0.0983])[:, None]
    # With equal utterances what is left of them is that 2.8 per cent of those not seen may have all words wrong.
    low, high = seed_mean_interval(errors, words)
    assert high == pytest.approx(0.12247 + math.hypot(0.0545, 0.0280), abs=2e-4)
    assert low == pytest.approx(0.12247 - math.hypot(0.0545, 0.0280), abs=2e-4)
    with pytest.raises(ValueError, match="two or more, found one"):
        seed_mean_interval(errors[:1], words)


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("num", [16, 60])
def test_intervals_hold_the_truth_about_as_often_as_they_say(name: str, num: int) -> None:
    """Of 2,000 samples at least 92.5 per cent.

    Of words inserted by the dozen into a few utterances, no interval of so few utterances sees enough; the full table is in
    ``benchmarks/README.md``.
    """
    least = {("babbling", 16): 0.85, ("babbling", 60): 0.89}.get((name, num), 0.925)
    assert covered(name, num, methods=("ours",), num_samples=2000)["ours"].share > least


def test_means_over_seeds_hold_the_truth_where_utterances_alone_do_not() -> None:
    found = seeds_covered(3, 60, seed_spread=0.3, num_samples=2000)
    assert found["ours"].share > 0.925 > 0.85 > found["utterances"].share

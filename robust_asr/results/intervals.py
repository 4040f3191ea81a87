"""Confidence intervals over utterances: of error rates, of paired differences, of means, of medians and of shares.

All are in closed form: no resampling, so that the same rows give the same limits, and every cell of a large table takes no time.
``benchmarks/coverage.py`` measures how often they hold the truth, beside the percentile, BCa and studentised bootstraps.

Shape: counts and values of B cells of N utterances each, (..., N); limits are (...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robust_asr.results.beta import beta_quantile, student_quantile

CONFIDENCE = 0.95
# Deviations below this share of the counts are rounding.
_ROUNDING = 1e-12
# Numbers that ``in_batches`` takes at once: a few times 16 MB.
_BATCH = 2_000_000


def rate_interval(
    errors: Tensor, words: Tensor, *, most: float = math.inf, confidence: float = CONFIDENCE
) -> tuple[Tensor, Tensor]:
    """Limits of an error rate, all errors over all words; ``most`` is the highest rate that an utterance can have.

    Those of ``difference_interval``, and the upper one is at least what the utterances with an error allow: Clopper and Pearson's
    upper limit of their share, times the errors that they make on average. Without any error, each utterance that was not seen
    may have all of its words wrong: 0 errors in 16 utterances are [0, 20.6] per cent. Where ``most`` is 1, the same holds for
    the words that are right.

    Units: fractions of the words.
    """
    errors, words = _alike(errors, words)
    low, high = difference_interval(errors, words, confidence=confidence)
    high = high.maximum(_reach(errors, words, confidence))
    if most == 1:
        low = low.minimum(1 - _reach(words - errors, words, confidence))
    return low.clamp(0, most), high.clamp(0, most)


def difference_interval(change: Tensor, words: Tensor, *, confidence: float = CONFIDENCE) -> tuple[Tensor, Tensor]:
    """Limits of the difference of two error rates on the same utterances; ``change`` is one count of errors minus the other.

    The interval is studentised: a ratio of sums has the standard error of its linear approximation (the infinitesimal jackknife),
    Student's quantiles of N - 1 degrees of freedom, and is corrected for the skewness of its terms by Hall's transformation
    (Hall 1992, "On the removal of skewness by transformation", section 2). It is never narrower than without this correction,
    because a few utterances say little about their skewness. Where all utterances have the same rate, N = 1 among them, the
    limits lie as far from it as utterances that were not seen can move it: each by all of its words, and their share is at most
    Clopper and Pearson's upper limit for none of N.

    Units: fractions of the words.
    """
    change, words = _alike(change, words)
    rate = change.sum(-1) / words.sum(-1)
    low, high = _studentised(rate, (change - rate[..., None] * words) / words.mean(-1, keepdim=True), confidence)
    unseen = share_interval(0, change.shape[-1], confidence=confidence)[1]
    scale = change.abs().amax(-1) + words.amax(-1)
    constant = (change - rate[..., None] * words).abs().amax(-1) <= _ROUNDING * scale
    return torch.where(constant, rate - unseen, low), torch.where(constant, rate + unseen, high)


def mean_interval(values: Tensor, *, confidence: float = CONFIDENCE) -> tuple[Tensor, Tensor]:
    """Limits of a mean of measured values, as ``difference_interval``; equal values have a point.

    One value says nothing about others: its limits are infinite.
    """
    values = _counts(values)
    mean = values.mean(-1)
    if values.shape[-1] == 1:
        return torch.full_like(mean, -math.inf), torch.full_like(mean, math.inf)
    deviations = values - mean[..., None]
    low, high = _studentised(mean, deviations, confidence)
    constant = deviations.abs().amax(-1) <= _ROUNDING * values.abs().amax(-1)
    return torch.where(constant, mean, low), torch.where(constant, mean, high)


def seed_mean_interval(errors: Tensor, words: Tensor, *, confidence: float = CONFIDENCE) -> tuple[Tensor, Tensor]:
    """Limits of the mean error rate of S trainings that differ in their seed, for other utterances and other seeds.

    Two half-widths, added in squares on either side (Zou and Donner 2008, "Construction of confidence limits about effect
    measures"): that of ``rate_interval`` of the utterances with their mean errors, and Student's interval of the S rates, with
    S - 1 degrees of freedom. It is therefore never narrower than the interval over the seeds alone.

    Shape: errors (..., S, N), words (..., N). Units: fractions of the words. Errors: ValueError for one seed, which says nothing
    about others.
    """
    num_seeds = errors.shape[-2]
    if num_seeds < 2:
        raise ValueError("a mean over seeds takes two or more, found one")
    errors, words = _counts(errors), _counts(words)
    low, high = rate_interval(errors.mean(-2), words, confidence=confidence)
    rates = errors.sum(-1) / words.sum(-1, keepdim=True)
    mean = rates.mean(-1)
    half = student_quantile(1 - _tail(confidence), num_seeds - 1) * rates.std(-1) / math.sqrt(num_seeds)
    return (mean - half.hypot(mean - low)).clamp(min=0), mean + half.hypot(high - mean)


def in_batches(
    interval: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], cells: Sequence[tuple[Tensor, Tensor]]
) -> list[tuple[float, float]]:
    """The limits of many cells, each two tensors (N,) of its own N: those of one N are computed together."""
    places: dict[int, list[int]] = {}
    for place, (counts, _) in enumerate(cells):
        places.setdefault(len(counts), []).append(place)
    limits = [(math.nan, math.nan)] * len(cells)
    for num, alike in places.items():
        step = max(_BATCH // num, 1)
        for chosen in (alike[start : start + step] for start in range(0, len(alike), step)):
            counts, words = (torch.stack(side) for side in zip(*(cells[place] for place in chosen), strict=True))
            found = zip(*(side.tolist() for side in interval(counts, words)), strict=True)
            for place, pair in zip(chosen, found, strict=True):
                limits[place] = pair
    return limits


def share_interval(count: int, total: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Limits of a share, ``count`` of ``total`` (Clopper and Pearson 1934): they hold the truth at least as often as asked.

    Units: fractions. Errors: ValueError for a count that is no part of the total.
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count must lie between 0 and total, and total be positive, got {count} of {total}")
    tail = _tail(confidence)
    low = beta_quantile(tail, count, total - count + 1) if count else 0.0
    high = beta_quantile(1 - tail, count + 1, total - count) if count < total else 1.0
    return low, high


def median_ranks(num: int, *, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks from 1 of the order statistics between which the median of any distribution lies, None where N is too small (below 6).

    The interval from the k-th smallest to the k-th largest of N values holds it with 1 - 2 P(B < k), B binomial of N fair coins
    (Thompson 1936); k is the largest for which that is at least ``confidence``. Equal values only make it hold more often.
    """
    tail, below, rank = _tail(confidence), 0.0, 0
    while (below := below + math.comb(num, rank) / 2**num) <= tail:
        rank += 1
    return (rank, num + 1 - rank) if rank else None


def _studentised(estimate: Tensor, deviations: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """The hull of Student's interval and of the same under Hall's transformation. ``deviations`` have mean zero, (..., N)."""
    num = deviations.shape[-1]
    quantile = student_quantile(1 - _tail(confidence), max(num - 1, 1))
    variance = deviations.square().mean(-1)
    error = (variance / max(num - 1, 1)).sqrt()
    skewness = (deviations**3).mean(-1) / variance.clamp(min=torch.finfo(variance.dtype).tiny) ** 1.5
    upper, lower = (_untransformed(side * quantile, skewness, num) for side in (1, -1))
    return (
        estimate - error * upper.clamp(min=quantile),
        estimate - error * lower.clamp(max=-quantile),
    )


def _untransformed(limit: float, skewness: Tensor, num: int) -> Tensor:
    """The studentised error T whose transform is ``limit``.

    The transform is T + a T^2 + a^2 T^3 / 3 + a / 2, where a = skewness / (3 sqrt N).
    """
    bend = skewness / (3 * math.sqrt(num))
    straight = bend.abs() < 1e-6
    bend = torch.where(straight, torch.ones_like(bend), bend)
    root = 1 + 3 * bend * (limit - bend / 2)
    bent = (root.sign() * root.abs() ** (1 / 3) - 1) / bend
    return torch.where(straight, torch.full_like(bent, limit), bent)


def _reach(errors: Tensor, words: Tensor, confidence: float) -> Tensor:
    """The rate if utterances with an error were as frequent as Clopper and Pearson's upper limit of their share."""
    num = errors.shape[-1]
    erring = (errors > 0).sum(-1)
    highest = [share_interval(int(count), num, confidence=confidence)[1] for count in erring.flatten()]
    average = torch.where(erring > 0, errors.sum(-1) / erring.clamp(min=1) / words.mean(-1), 1.0)
    return average * torch.tensor(highest, dtype=average.dtype).reshape(erring.shape)


def _alike(counts: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    counts, words = _counts(counts), _counts(words)
    if counts.shape != words.shape:
        raise ValueError(
            f"errors and words hold one count an utterance, got {tuple(counts.shape)} and {tuple(words.shape)}"
        )
    if not (words.sum(-1) > 0).all():
        raise ValueError("an error rate needs a word to be wrong, got none in all utterances")
    return counts, words


def _counts(values: Tensor) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64).cpu()
    if not values.dim() or not values.shape[-1]:
        raise ValueError(f"an interval needs one number an utterance, got a tensor of shape {tuple(values.shape)}")
    return values


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return (1 - confidence) / 2

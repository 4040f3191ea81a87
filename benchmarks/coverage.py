"""``python -m benchmarks.coverage``: how often 95 % intervals hold the true rate, by the number of utterances.

Utterances are drawn from populations whose rate is known: as many words as AN4's test utterances have, and errors that most
utterances have none of and a few have many of. The percentile, BCa and studentised bootstraps stand beside the library's interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import torch
from torch import Generator, Tensor

from robust_asr.results.intervals import difference_interval, rate_interval, seed_mean_interval

SIZES = (8, 16, 24, 60, 200)
# Words -> how many of AN4's 130 test utterances have as many.
_WORDS = {1: 8, 2: 6, 3: 7, 4: 13, 5: 29, 6: 13, 7: 26, 8: 4, 9: 13, 10: 8, 11: 1, 13: 1, 16: 1}
_POOL = 1_000_000
_NUM_RESAMPLES = 1999
_TAILS = torch.tensor([0.025, 0.975], dtype=torch.float64)
_METHODS = ("percentile", "BCa", "studentised", "ours")
# Studentised resamples of equal utterances are divided by zero: their limits are infinite.
Limits = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Population:
    """``errors``: (words of each utterance, generator) -> errors of each utterance. ``kind``: rate, capped rate or difference."""

    errors: Callable[[Tensor, Generator], Tensor]
    kind: str = "rate"

    def draw(self, size: tuple[int, ...], generator: Generator) -> tuple[Tensor, Tensor]:
        """Errors and words, both of ``size``."""
        lengths, weights = torch.tensor(list(_WORDS)), torch.tensor(list(_WORDS.values())).double()
        picked = torch.multinomial(weights, torch.Size(size).numel(), replacement=True, generator=generator)
        words = lengths[picked].reshape(size).double()
        return self.errors(words, generator), words


@dataclass(frozen=True)
class Coverage:
    """Shares of the samples: whose interval holds the truth, lies above it, below it, has no end. ``width`` is the mean one."""

    share: float
    above: float
    below: float
    endless: float
    width: float


def _wrong(words: Tensor, generator: Generator, *, erring: float, rate: float, spread: float) -> Tensor:
    """Words wrong in the share ``erring`` of the utterances; the log-odds of an error have a standard deviation ``spread``."""
    logit = torch.logit(torch.tensor(rate)) + spread * torch.randn(words.shape, generator=generator, dtype=words.dtype)
    chances = logit.sigmoid() * (torch.rand(words.shape, generator=generator) < erring)
    return torch.binomial(words, chances, generator=generator)


def _inserted(words: Tensor, generator: Generator, *, rate: float) -> Tensor:
    """Inserted words, ``rate`` for each word on average, most of them in a few utterances: an exponential rate, squared."""
    exponential = -torch.rand(words.shape, generator=generator, dtype=words.dtype).clamp(min=1e-12).log()
    return torch.poisson(words * rate * exponential**2 / 2, generator=generator)


def _babbling(words: Tensor, generator: Generator) -> Tensor:
    wrong = _wrong(words, generator, erring=0.95, rate=0.8, spread=1.0)
    return wrong + _inserted(words, generator, rate=0.4)


def _gain(words: Tensor, generator: Generator) -> Tensor:
    before = _wrong(words, generator, erring=0.8, rate=0.5, spread=1.0) + _inserted(words, generator, rate=0.1)
    return _wrong(words, generator, erring=0.6, rate=0.3, spread=1.0) - before


def _difference(words: Tensor, generator: Generator, *, erring: float, other: float) -> Tensor:
    sides = [_wrong(words, generator, erring=share, rate=0.3, spread=0.5) for share in (erring, other)]
    return sides[0] - sides[1]


POPULATIONS = {
    "rare errors": Population(lambda w, g: _wrong(w, g, erring=0.07, rate=0.3, spread=0.5)),
    "clean": Population(lambda w, g: _wrong(w, g, erring=0.5, rate=0.25, spread=1.0)),
    "attacked": Population(lambda w, g: _wrong(w, g, erring=0.9, rate=0.5, spread=1.5)),
    "babbling": Population(_babbling),
    "babbling, capped": Population(lambda w, g: _babbling(w, g).minimum(w), kind="capped rate"),
    "insertions": Population(lambda w, g: _inserted(w, g, rate=0.1)),
    "rare differences": Population(lambda w, g: _difference(w, g, erring=0.05, other=0.1), kind="difference"),
    "small difference": Population(lambda w, g: _difference(w, g, erring=0.3, other=0.2), kind="difference"),
    "large gain": Population(_gain, kind="difference"),
}


@cache
def true_rate(name: str) -> float:
    errors, words = POPULATIONS[name].draw((_POOL,), torch.Generator().manual_seed(1))
    return float(errors.sum() / words.sum())


def covered(
    name: str, num: int, *, methods: Sequence[str] = _METHODS, num_samples: int = 4000, seed: int = 0
) -> dict[str, Coverage]:
    """Draw samples of ``num`` utterances from a population and see how often each method's interval holds its rate."""
    generator = torch.Generator().manual_seed(seed)
    population, truth = POPULATIONS[name], true_rate(name)
    errors, words = population.draw((num_samples, num), generator)
    found = {}
    if "ours" in methods:
        found["ours"] = _ours(errors, words, population.kind)
    if set(methods) - {"ours"}:
        found |= _bootstraps(errors, words, generator)
    return {method: _coverage(*found[method], truth) for method in methods}


def _coverage(low: Tensor, high: Tensor, truth: float) -> Coverage:
    above, below = (low > truth).double().mean(), (high < truth).double().mean()
    endless = (high - low).isinf().double().mean()
    return Coverage(*map(float, (1 - above - below, above, below, endless, (high - low).mean())))


def _ours(errors: Tensor, words: Tensor, kind: str) -> Limits:
    if kind == "difference":
        return difference_interval(errors, words)
    return rate_interval(errors, words, most=1 if kind == "capped rate" else torch.inf)


def _bootstraps(errors: Tensor, words: Tensor, generator: Generator) -> dict[str, Limits]:
    """All samples have the same resamples: how often each utterance is drawn, so that sums are products of matrices."""
    num = errors.shape[1]
    picked = torch.randint(num, (_NUM_RESAMPLES, num), generator=generator)
    drawn = torch.zeros(_NUM_RESAMPLES, num, dtype=torch.float64).scatter_add_(
        1, picked, torch.ones(picked.shape).double()
    )
    chunks = [_bootstrap(*chunk, drawn) for chunk in zip(errors.split(500), words.split(500), strict=True)]
    return {
        method: tuple(torch.cat(side) for side in zip(*(chunk[method] for chunk in chunks), strict=True))
        for method in chunks[0]
    }


def _bootstrap(errors: Tensor, words: Tensor, drawn: Tensor) -> dict[str, Limits]:
    rate = errors.sum(1) / words.sum(1)
    error = _standard_error(errors, words, torch.ones(1, errors.shape[1], dtype=torch.float64))[0]
    rates = (drawn @ errors.T) / (drawn @ words.T)
    studentised = ((rates - rate) / _standard_error(errors, words, drawn)).nan_to_num(
        0.0, posinf=torch.inf, neginf=-torch.inf
    )
    low, high = _order_statistics(studentised, _TAILS[:, None].expand(2, len(rate)))
    ends = [rate - error * high, rate - error * low]
    return {
        "percentile": tuple(rates.quantile(_TAILS, dim=0)),
        "BCa": _bca(rates, rate, errors - rate[:, None] * words),
        "studentised": tuple(torch.where(error > 0, end, rate) for end in ends),
    }


def _standard_error(errors: Tensor, words: Tensor, drawn: Tensor) -> Tensor:
    """Of the ratio, by linearisation, in each resample of each sample."""
    total, num = drawn @ words.T, errors.shape[1]
    rates = (drawn @ errors.T) / total
    squares = drawn @ (errors**2).T - 2 * rates * (drawn @ (errors * words).T) + rates**2 * (drawn @ (words**2).T)
    # What rounding leaves of equal utterances is no spread.
    squares = torch.where(squares > 1e-9, squares, 0.0)
    return (squares * num / (num - 1)).sqrt() / total


def _bca(rates: Tensor, rate: Tensor, deviations: Tensor) -> Limits:
    """Bias-corrected and accelerated (Efron 1987)."""
    below = (rates < rate).double().mean(0) + (rates == rate).double().mean(0) / 2
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    bias = normal.icdf(below.clamp(1 / len(rates), 1 - 1 / len(rates)))
    acceleration = (deviations**3).sum(1) / (6 * deviations.square().sum(1).clamp(min=1e-100) ** 1.5)
    moved = bias + normal.icdf(_TAILS)[:, None]
    return _order_statistics(rates, normal.cdf(bias + moved / (1 - acceleration * moved)))


def _order_statistics(values: Tensor, probabilities: Tensor) -> Limits:
    """The values at two probabilities for each column; infinities are values. Shape: (R, S), (2, S)."""
    places = (probabilities * len(values)).long().clamp(0, len(values) - 1)
    low, high = values.sort(0).values.gather(0, places)
    return low, high


def seeds_covered(num_seeds: int, num: int, *, seed_spread: float, num_samples: int = 4000) -> dict[str, Coverage]:
    """The mean over seeds of a rate of 20 per cent, which each training multiplies by another factor around one.

    "utterances" is the interval over the utterances with their mean errors, which knows nothing of the seeds.
    """
    generator = torch.Generator().manual_seed(num_seeds)
    shape = (num_samples, num_seeds, 1)
    factors = 1 + seed_spread * torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-3, 3)
    _, words = POPULATIONS["clean"].draw((num_samples, num), generator)
    difficulty = torch.rand(words.shape, generator=generator, dtype=torch.float64).square()
    chances = 0.6 * factors * difficulty[:, None]
    errors = torch.binomial(words[:, None].expand(chances.shape).contiguous(), chances, generator=generator)
    limits = {"utterances": rate_interval(errors.mean(1), words), "ours": seed_mean_interval(errors, words)}
    return {method: _coverage(*found, 0.2) for method, found in limits.items()}


def table(sizes: Sequence[int], num_samples: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield (
        "| population | rate, % | n | "
        + " | ".join(_METHODS)
        + " | ours above; below the truth | studentised: endless | width: percentile; ours |"
    )
    yield "|---" * (6 + len(_METHODS)) + "|"
    for name in POPULATIONS:
        for num in sizes:
            found = covered(name, num, num_samples=num_samples)
            ours = found["ours"]
            cells = [
                name,
                f"{100 * true_rate(name):.1f}",
                str(num),
                *(f"{100 * found[method].share:.1f}" for method in _METHODS),
                f"{100 * ours.above:.1f}; {100 * ours.below:.1f}",
                f"{100 * found['studentised'].endless:.1f}",
                f"{100 * found['percentile'].width:.1f}; {100 * ours.width:.1f}",
            ]
            yield "| " + " | ".join(cells) + " |"


def seed_table(sizes: Sequence[int], num_samples: int) -> Iterator[str]:
    yield "| seeds | spread between seeds, points | n | utterances alone | ours | width: utterances alone; ours |"
    yield "|---" * 6 + "|"
    for num_seeds, spread in ((3, 0.0), (3, 0.15), (3, 0.3), (5, 0.15)):
        for num in sizes:
            alone, ours = seeds_covered(num_seeds, num, seed_spread=spread, num_samples=num_samples).values()
            shares = f"{100 * alone.share:.1f} | {100 * ours.share:.1f}"
            yield f"| {num_seeds} | {20 * spread:.0f} | {num} | {shares} | {100 * alone.width:.1f}; {100 * ours.width:.1f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--samples", type=int, default=4000, help="samples of each size (default %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="utterances of a sample")
    chosen = parser.parse_args(arguments)
    for line in chain(table(chosen.sizes, chosen.samples), [""], seed_table(chosen.sizes, chosen.samples)):
        print(line, flush=True)


if __name__ == "__main__":
    main()

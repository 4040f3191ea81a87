"""Breaking points of a cell: their median with its interval, and the share of the utterances that each budget breaks.

An utterance whose breaking point lies outside of the range that was searched is censored: it counts as anything beyond that end of
the range. A number that this leaves open is written as a bound, such as "> 0.1".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from robust_asr.results import Evaluation
from robust_asr.results.intervals import median_ranks, share_interval
from robust_asr.types import Broken

Row = Mapping[str, Any]
# The two scales, under the names of their metrics: an amplitude in decibels of full scale, and the SNR at it.
SNR, AMPLITUDE = "breaking_SNR", "breaking_amplitude"


@dataclass(frozen=True)
class Span:
    """A number that is known to lie between two limits, either of which may be infinite. Units: dB."""

    low: float
    high: float

    def __str__(self) -> str:
        return self.text(lambda value: f"{value:.1f}")

    def text(self, shown: Callable[[float], str]) -> str:
        """The number where the limits agree as they are shown, else what is known of it; ``shown`` writes a finite number."""
        low, high = math.isfinite(self.low), math.isfinite(self.high)
        if low and high:
            return " to ".join(dict.fromkeys((shown(self.low), shown(self.high))))
        return f"> {shown(self.low)}" if low else f"< {shown(self.high)}" if high else "unknown"

    @property
    def exact(self) -> bool:
        return self.low == self.high and math.isfinite(self.low)


@dataclass(frozen=True)
class Median:
    """The median of censored numbers and its 95 % interval, whose limits may be infinite. Units: dB."""

    value: Span
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class BreakingPoints:
    """The breaking points of one cell. ``excluded`` counts its utterances that have none, such as those without a word.

    Attributes:
        snrs, levels: what is known of each utterance. Units: dB of SNR, which silence has not, and dB of full scale.
        unperturbed, smallest, beyond: the utterances that need no perturbation, those that already the smallest budget breaks,
            and those that nothing breaks.
    """

    snrs: tuple[Span, ...]
    levels: tuple[Span, ...]
    unperturbed: int
    smallest: int
    beyond: int
    excluded: int

    @property
    def n(self) -> int:
        return len(self.levels)

    @property
    def below(self) -> int:
        """Utterances whose breaking point lies below the range."""
        return self.unperturbed + self.smallest


def is_breaking(about: Mapping[str, Any]) -> bool:
    """Whether a condition of an evaluation is a breaking point. Its error rates say nothing: each row is of another budget."""
    return bool(about["columns"].get("breaking"))


def without_breaking(conditions: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The conditions of one budget each, whose error rates can be compared."""
    return {name: about for name, about in conditions.items() if not is_breaking(about)}


def breaking_points(rows: Sequence[Row]) -> BreakingPoints:
    known = [row for row in rows if row.get("breaking") is not None]
    outcomes = [Broken(row["breaking"]) for row in known]
    pairs = list(zip(known, outcomes, strict=True))
    return BreakingPoints(
        tuple(_snr(row["breaking_snr_db"], broken) for row, broken in pairs if row.get("breaking_snr_db") is not None),
        tuple(_level(20 * math.log10(row["breaking_amplitude"]), broken) for row, broken in pairs),
        *(outcomes.count(broken) for broken in (Broken.UNPERTURBED, Broken.SMALLEST, Broken.BEYOND)),
        excluded=len(rows) - len(known),
    )


def median(spans: Sequence[Span]) -> Median | None:
    """The median, and its distribution-free interval between two order statistics (``intervals.median_ranks``).

    Censored numbers make the limits of the median those of the lowest and of the highest numbers that they may be, so it is
    defined where fewer than half lie beyond one end, whatever the numbers are. None without a number.
    """
    if not spans:
        return None
    lows, highs = sorted(span.low for span in spans), sorted(span.high for span in spans)
    ranks = median_ranks(len(spans))
    low, high = (lows[ranks[0] - 1], highs[ranks[1] - 1]) if ranks else (-math.inf, math.inf)
    return Median(Span(_middle(lows), _middle(highs)), low, high, len(spans))


def paired_snr(rows: Sequence[Row], others: Sequence[Row]) -> Median | None:
    """The median of breaking SNRs minus those of ``others``, on the utterances that both have; None where there are none.

    Above zero, the rows break earlier than the others.
    """
    known = {row["id"]: span for row in others for span in breaking_points([row]).snrs}
    pairs = [(span, known[row["id"]]) for row in rows if row["id"] in known for span in breaking_points([row]).snrs]
    return median([Span(mine.low - theirs.high, mine.high - theirs.low) for mine, theirs in pairs])


def breaking_differences(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The lines of ``differences.csv`` on conditions that are breaking points: ``paired_snr`` of each system and each before it.

    Of a value that is known between two limits it is their middle; one that censored utterances leave open is a text such as
    "> 0.1", and a limit that they leave open is infinite. Units: dB.
    """
    lines = []
    for part in evaluation.parts:
        for condition in (name for name, about in evaluation.conditions.items() if is_breaking(about)):
            rows = {system: evaluation.select(system, condition, part) for system in evaluation.systems}
            for baseline, system in combinations(evaluation.systems, 2):
                found = paired_snr(rows[system], rows[baseline])
                if found is not None:
                    middle = (found.value.low + found.value.high) / 2
                    value = middle if math.isfinite(middle) else str(found.value)
                    names = {"condition": condition, "eval_set": part, "system": system, "baseline": baseline}
                    lines.append({**names, **_line(SNR, value, "dB", found.n, found.low, found.high)})
    return lines


def broken_shares(levels: Sequence[Span]) -> list[tuple[float, float]]:
    """Level or SNR -> the share of the utterances that break there or before, one pair for each budget at which some break.

    Units: those of ``levels``; fractions. Utterances that break below the range count from the end of the range on.
    """
    places = sorted({_place(span) for span in levels} - {None})
    return [
        (place, sum(_place(span) is not None and _place(span) <= place for span in levels) / len(levels))
        for place in places
    ]


def breaking_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """``metric``, ``value``, ``unit``, ``n``, ``ci_low`` and ``ci_high`` of a cell, as ``summary.cell_metrics`` of other cells.

    ``breaking_SNR`` is the number by which systems are compared: the lower, the more noise a system withstands. A value that
    censored utterances leave open is a text such as "> 0.1"; a limit that they leave open is infinite.
    """
    points = breaking_points(rows)
    lines = []
    for metric, spans, unit, shown in (
        (SNR, points.snrs, "dB", _same),
        (AMPLITUDE, points.levels, "amplitude", amplitude),
    ):
        found = median(spans)
        if found is not None:
            value = (
                shown(found.value.low)
                if found.value.exact
                else found.value.text(lambda each, shown=shown: f"{shown(each):.4g}")
            )
            lines.append(_line(metric, value, unit, found.n, shown(found.low), shown(found.high)))
    held = {
        "broken_unperturbed": points.unperturbed,
        "broken_at_smallest_budget": points.smallest,
        "not_broken": points.beyond,
        # On the draws of the verdict, which may see an utterance of a random recogniser otherwise than the search did.
        "success_rate": sum(bool(row.get("success")) for row in rows if row.get("breaking") is not None),
    }
    for metric, count in held.items() if points.n else ():
        low, high = share_interval(count, points.n)
        lines.append(_line(metric, 100 * count / points.n, "%", points.n, 100 * low, 100 * high))
    return lines


def amplitude(level: float) -> float:
    """Full-scale amplitude of a level in dB, which may be infinite."""
    return 10 ** (level / 20) if level < math.inf else math.inf


def _line(metric: str, value: Any, unit: str, n: int, low: float, high: float) -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": unit, "n": n, "ci_low": low, "ci_high": high}


def _level(value: float, broken: Broken) -> Span:
    return Span(-math.inf if broken.below else value, math.inf if broken is Broken.BEYOND else value)


def _snr(value: float, broken: Broken) -> Span:
    """The larger the perturbation, the lower the SNR."""
    return Span(-math.inf if broken is Broken.BEYOND else value, math.inf if broken.below else value)


def _place(span: Span) -> float | None:
    """Where a number counts as reached; None for one that is never."""
    return span.high if math.isfinite(span.high) else None


def _middle(ordered: Sequence[float]) -> float:
    below, above = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return below if below == above else (below + above) / 2


def _same(value: float) -> float:
    return value

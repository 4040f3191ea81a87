"""WER against strength: a line for each system, its interval as a band, and the clean audio at the left end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robust_asr.report.axes import Axis, is_logarithmic, nice_top, steps, without_collisions
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.labels import scale
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import interval, rate, strength
from robust_asr.report.series import colour, dash, marker
from robust_asr.results.families import Family

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 350, 22, 206
# Where an axis cannot reach zero, the clean audio stands this far to the left of it.
_CLEAN_ROOM = 44


@dataclass(frozen=True)
class Estimate:
    """A point of a line. ``strength`` is None for the clean audio. Units: per cent."""

    strength: float | None
    value: float
    low: float
    high: float
    n: int
    partial: bool


@dataclass(frozen=True)
class Line:
    """``index`` is the place of the system in the report: its colour, marker and dash."""

    system: str
    index: int
    estimates: tuple[Estimate, ...]


def lines_of(grid: Grid, family: Family, part: str, *, metric: str = "WER") -> list[Line]:
    """One line for each system that was run under any strength, clean audio first. ``metric``: WER or TGT_WER."""
    lines = []
    for index, system in enumerate(grid.systems):
        clean = grid.clean_cell(part, system)
        estimates = [_estimate(clean, None, metric)] if clean else []
        for point in family.points:
            if point.strength is not None:
                estimates.append(_estimate(grid.cell(system, point.condition, part), point.strength, metric))
        kept = tuple(estimate for estimate in estimates if estimate)
        if any(estimate.strength is not None for estimate in kept):
            lines.append(Line(system, index, kept))
    return lines


def line_plot(family: Family, lines: Sequence[Line], *, label: str, metric: str = "WER") -> str:
    """The plot as one SVG element; its data in words are its accessible name."""
    across = _Across(family, lines)
    largest = max((estimate.high for line in lines for estimate in line.estimates), default=0)
    top, step = nice_top(max(largest, 1))
    up = Axis(0, top, BOTTOM, TOP)
    described = "; ".join(_in_words(family, line) for line in lines)
    # Many bands over each other would hide the lines.
    opacity = 0.13 if len(lines) <= 4 else 0.05
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(f"{label}. {described}")}">'
        f"{grid_lines(up, top, step)}{across.markup(family)}"
        f'<text class="axis" x="4" y="11">{escaped(metric)}, %</text>'
        f"{''.join(_band(line, across, up, opacity) for line in lines)}{''.join(_line(line, across, up) for line in lines)}</svg>"
    )


class _Across:
    """The horizontal axis: linear from the clean audio at zero, or logarithmic or in dB with the clean audio apart."""

    def __init__(self, family: Family, lines: Iterable[Line]) -> None:
        strengths = sorted({e.strength for line in lines for e in line.estimates if e.strength is not None})
        has_clean = any(e.strength is None for line in lines for e in line.estimates)
        self.strengths = strengths
        logarithmic = not family.falls and is_logarithmic(strengths)
        self.apart = family.falls or logarithmic or strengths[0] < 0
        low, high = (strengths[-1], strengths[0]) if family.falls else (strengths[0], strengths[-1])
        start = LEFT + 12 + (_CLEAN_ROOM if self.apart and has_clean else 0)
        self.axis = Axis(low if self.apart else 0.0, high, start, RIGHT - 16, logarithmic=logarithmic)
        self.clean = LEFT + 12 if has_clean else None

    def __call__(self, value: float | None) -> float:
        return self.clean if value is None else self.axis(value)

    def markup(self, family: Family) -> str:
        labels = [] if self.clean is None else [(self.clean, "clean")]
        labels += [(self.axis(value), strength(value)) for value in sorted(self.strengths, reverse=family.falls)]
        ticks = "".join(f'<path class="tick" d="M{x:.1f} {BOTTOM}v4"/>' for x, _ in labels)
        texts = "".join(
            f'<text class="tick-label" x="{x:.1f}" y="{BOTTOM + 17}" text-anchor="middle">{escaped(text)}</text>'
            for x, text in without_collisions(labels)
        )
        cut = self.axis.start - _CLEAN_ROOM / 2
        broken = f'<path class="cut" d="M{cut - 4:.1f} {BOTTOM + 4}l4 -8M{cut + 1:.1f} {BOTTOM + 4}l4 -8"/>'
        name = scale(family) or "strength"
        middle = (LEFT + RIGHT) / 2
        return (
            f"{ticks}{texts}{broken if self.apart and self.clean is not None else ''}"
            f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escaped(name)}: stronger to the right</text>'
        )


def _estimate(cell: Cell, value: float | None, metric: str) -> Estimate | None:
    line = cell.wer if metric == "WER" else cell.lines.get(metric)
    if line is None:
        return None
    return Estimate(value, line["value"], line["ci_low"], line["ci_high"], line["n"], cell.partial)


def _in_words(family: Family, line: Line) -> str:
    points = [
        f"{'clean' if e.strength is None else strength(e.strength)} {rate(e.value)} {interval(e.low, e.high)}"
        for e in line.estimates
    ]
    return f"{line.system}: {', '.join(points)}"


def grid_lines(up: Axis, top: float, step: float) -> str:
    """Lines across a plot from 0 to ``top``, with their numbers. Units: per cent."""
    rules = []
    for value in steps(0, top, step):
        y = up(value)
        strong = " zero" if value == 0 else " whole" if value == 100 else ""
        rules.append(f'<path class="rule{strong}" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        rules.append(f'<text class="tick-label" x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    return "".join(rules)


def _band(line: Line, across: _Across, up: Axis, opacity: float) -> str:
    above = [f"{across(e.strength):.1f} {up(e.high):.1f}" for e in line.estimates]
    below = [f"{across(e.strength):.1f} {up(e.low):.1f}" for e in reversed(line.estimates)]
    path = "L".join([*above, *below])
    return f'<path class="band {colour(line.index)}" fill-opacity="{opacity}" d="M{path}z"/>'


def _line(line: Line, across: _Across, up: Axis) -> str:
    places = [(across(e.strength), up(e.value)) for e in line.estimates]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    markers = "".join(marker(line.index, x, y) for x, y in places)
    return f'<path class="line {colour(line.index)}" d="M{path}"{dash(line.index)}/>{markers}'

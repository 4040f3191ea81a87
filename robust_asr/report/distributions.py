"""How the errors spread over utterances: quartiles, tails and single utterances, for each system under a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robust_asr.metrics import word_edits
from robust_asr.report.axes import Axis
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import count, rate
from robust_asr.report.series import colour, marker

WIDTH = 360
# The largest rate that is drawn: an utterance may have many more errors than words, and rates beyond this are counted.
LIMIT = 200.0
_LEFT, _RIGHT, _ROW, _TOP = 12, 348, 46, 4
_MOST_DOTS = 160
QUANTILES = (("5th per cent", 0.05), ("25th", 0.25), ("median", 0.5), ("75th", 0.75), ("95th", 0.95))


@dataclass(frozen=True)
class Spread:
    """Per-utterance WER of one system, sorted. Units: per cent. ``without_words`` utterances have no WER."""

    system: str
    index: int
    rates: tuple[float, ...]
    without_words: int

    def quantile(self, share: float) -> float:
        """The rate below which this share of the utterances lies, linear between its two neighbours."""
        place = share * (len(self.rates) - 1)
        below = int(place)
        above = min(below + 1, len(self.rates) - 1)
        return self.rates[below] + (place - below) * (self.rates[above] - self.rates[below])

    @property
    def beyond(self) -> int:
        return sum(value > LIMIT for value in self.rates)


def spreads(grid: Grid, part: str, condition: str) -> list[Spread]:
    cells = [(index, grid.cell(system, condition, part)) for index, system in enumerate(grid.systems)]
    return [spread for index, cell in cells if (spread := _spread(index, cell)).rates]


def distribution_plot(condition: str, drawn: Sequence[Spread]) -> str:
    """A row for each system: its name, a box from the 25th to the 75th per cent, whiskers from the 5th to the 95th, dots."""
    largest = max(spread.rates[-1] for spread in drawn)
    across = Axis(0, 100 if largest <= 100 else LIMIT, _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(drawn)
    described = "; ".join(map(_in_words, drawn))
    label = escaped(f"Word error rate of each utterance, {condition}. {described}")
    rows = "".join(_row(spread, across, _TOP + _ROW * place) for place, spread in enumerate(drawn))
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {bottom + 36}" role="img" aria-label="{label}">'
        f"{_scale(across, bottom)}{rows}</svg>"
    )


def _spread(index: int, cell: Cell) -> Spread:
    worded = [row for row in cell.rows if row["words"]]
    rates = sorted(100 * word_edits(row) / row["words"] for row in worded)
    return Spread(cell.system, index, tuple(rates), len(cell.rows) - len(worded))


def _in_words(spread: Spread) -> str:
    quartiles = [f"{name} {rate(spread.quantile(share), digits=0)}" for name, share in QUANTILES]
    return f"{spread.system}: {', '.join(quartiles)} %, {count(len(spread.rates), 'utterance')}"


def _scale(across: Axis, bottom: float) -> str:
    marks = []
    for value in (0, 25, 50, 75, 100) if across.high <= 100 else (0, 50, 100, 150, 200):
        x = across(value)
        strong = " whole" if value == 100 else " zero" if value == 0 else ""
        anchor = "start" if value == 0 else "end" if value == across.high else "middle"
        marks.append(f'<path class="rule{strong}" d="M{x:.1f} {_TOP + 16}V{bottom}"/>')
        marks.append(f'<text class="tick-label" x="{x:.1f}" y="{bottom + 14}" text-anchor="{anchor}">{value}</text>')
    middle = (_LEFT + _RIGHT) / 2
    return f'{"".join(marks)}<text class="axis" x="{middle}" y="{bottom + 31}" text-anchor="middle">WER of an utterance, %</text>'


def _row(spread: Spread, across: Axis, top: float) -> str:
    low, first, median, third, high = (across(min(spread.quantile(share), LIMIT)) for _, share in QUANTILES)
    y = top + 32
    more = f", {spread.beyond} beyond {LIMIT:.0f} %" if spread.beyond else ""
    aside = f"median {rate(spread.quantile(0.5), digits=0)} %{more}"
    # Name and remark stand on one line, the name in bold.
    room = 39 - int(0.85 * len(aside))
    name = spread.system if len(spread.system) <= room else f"{spread.system[: room - 1]}\N{HORIZONTAL ELLIPSIS}"
    # The rates are sorted, so evenly spaced ones are a fair picture of all of them.
    step = max(len(spread.rates) / _MOST_DOTS, 1)
    shown = [spread.rates[int(place * step)] for place in range(int(len(spread.rates) / step))]
    dots = "".join(
        f"M{across(value):.1f} {y - 8 + 16 * _scattered(place):.1f}h0"
        for place, value in enumerate(shown)
        if value <= LIMIT
    )
    return (
        f'<text class="name" x="{_LEFT + 14}" y="{top + 13}">{escaped(name)}'
        f'<tspan class="aside" dx="6">{aside}</tspan></text>'
        f"{marker(spread.index, _LEFT + 5, top + 9)}"
        f'<path class="dots {colour(spread.index)}" d="{dots}"/>'
        f'<path class="whisker {colour(spread.index)}" d="M{low:.1f} {y}H{first:.1f}M{third:.1f} {y}H{high:.1f}'
        f'M{low:.1f} {y - 5}v10M{high:.1f} {y - 5}v10"/>'
        f'<rect class="box {colour(spread.index)}" x="{first:.1f}" y="{y - 8}" '
        f'width="{max(third - first, 1):.1f}" height="16" rx="2"/>'
        f'<path class="median {colour(spread.index)}" d="M{median:.1f} {y - 8}v16"/>'
    )


def _scattered(place: int) -> float:
    """A height in [0, 1) for each dot, neighbours far apart, the same on every page: multiples of the golden ratio."""
    return place * 0.6180339887498949 % 1

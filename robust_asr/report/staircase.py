"""The share of the utterances that each budget breaks: a staircase for each system, over the budgets that were searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robust_asr.report.axes import Axis, without_collisions
from robust_asr.report.lines import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, grid_lines
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import rate, strength
from robust_asr.report.series import colour, dash, marker
from robust_asr.results.breaking import BreakingPoints, Span, amplitude, broken_shares

# Room on either side of the range, so that no staircase runs along the edge of the plot. Units: dB.
_ROOM = 2.0
_MOST_TICKS = 6


@dataclass(frozen=True)
class Staircase:
    """One system. ``index`` is its place in the report.

    ``levels`` rise with what the attacker is allowed: in dB of full scale, or, where ``falls`` is set, minus the SNR.
    """

    system: str
    index: int
    levels: tuple[Span, ...]
    falls: bool = False

    @classmethod
    def of(cls, system: str, index: int, points: BreakingPoints, *, falls: bool) -> Staircase:
        levels = tuple(Span(-span.high, -span.low) for span in points.snrs) if falls else points.levels
        return cls(system, index, levels, falls)

    def shown(self, level: float) -> str:
        """A level as the axis has it: an SNR, or an amplitude."""
        return rate(-level) if self.falls else strength(float(f"{amplitude(level):.3g}"))

    @property
    def shares(self) -> list[tuple[float, float]]:
        return broken_shares(self.levels)


def staircase_plot(drawn: Sequence[Staircase], *, label: str) -> str:
    """The plot as one SVG element; its data in words are its accessible name."""
    falls = any(stairs.falls for stairs in drawn)
    ends = [end for stairs in drawn for span in stairs.levels for end in (span.low, span.high) if math.isfinite(end)]
    across = Axis(min(ends) - _ROOM, max(ends) + _ROOM, LEFT, RIGHT)
    up = Axis(0, 100, BOTTOM, TOP)
    described = "; ".join(map(_in_words, drawn))
    name, middle = "SNR, dB" if falls else "amplitude", (LEFT + RIGHT) / 2
    ticks = _ticks(_tens(across) if falls else _decades(across))
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(f"{label}. {described}")}">'
        f"{grid_lines(up, 100, 25)}{ticks}"
        f'<text class="axis" x="4" y="11">broken, %</text>'
        f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{name}: stronger to the right</text>'
        f"{''.join(_stairs(stairs, across, up) for stairs in drawn)}</svg>"
    )


def _tens(across: Axis) -> list[tuple[float, str]]:
    tens = range(math.ceil(across.low / 10), math.floor(across.high / 10) + 1)
    return [(across(10 * ten), rate(-10 * ten, digits=0)) for ten in tens]


def _decades(across: Axis) -> list[tuple[float, str]]:
    """1 and 3 times the powers of ten, or the powers alone, or fewer of them."""
    low, high = (10 ** (end / 20) for end in (across.low, across.high))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**power for power in powers for factor in (1, 3)]
    shown = [value for value in fine if low <= value <= high]
    if len(shown) > _MOST_TICKS:
        shown = [value for value in shown if round(math.log10(value), 6).is_integer()]
    return [(across(20 * math.log10(value)), strength(value)) for value in shown]


def _ticks(labels: list[tuple[float, str]]) -> str:
    ticks = "".join(f'<path class="tick" d="M{x:.1f} {BOTTOM}v4"/>' for x, _ in labels)
    return ticks + "".join(
        f'<text class="tick-label" x="{x:.1f}" y="{BOTTOM + 17}" text-anchor="middle">{escaped(text)}</text>'
        for x, text in without_collisions(labels)
    )


def _stairs(stairs: Staircase, across: Axis, up: Axis) -> str:
    path, markers, height = f"M{LEFT} {up(0):.1f}", "", 0.0
    for level, share in stairs.shares:
        # The marker stands where half of the utterances are broken: on the median.
        if height < 0.5 <= share:
            markers = marker(stairs.index, across(level), up(50))
        path += f"H{across(level):.1f}V{up(100 * share):.1f}"
        height = share
    return f'<path class="line {colour(stairs.index)}" d="{path}H{RIGHT}"{dash(stairs.index)}/>{markers}'


def _in_words(stairs: Staircase) -> str:
    points = [f"{rate(100 * share, digits=0)} % at {stairs.shown(level)}" for level, share in stairs.shares]
    return f"{stairs.system}: {', '.join(points) or 'none broken'}"

"""Small drawings in the rows of a table, all on the scale of their column. The numbers stand beside them as text."""

from __future__ import annotations

from collections.abc import Sequence

from robust_asr.report.axes import Axis
from robust_asr.report.series import colour, marker

WIDTH = 320
_PAD = 8
# Kind of edit -> the fill that tells it apart, with and without colour.
EDITS = {"substitutions": "substituted", "deletions": "deleted", "insertions": "inserted"}

PATTERNS = """\
<svg width="0" height="0" aria-hidden="true" class="defs"><defs>
<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="deleted-ground" width="5" height="5"/><path class="deleted-line" d="M1 0V5"/></pattern>
<pattern id="speckle" width="5" height="5" patternUnits="userSpaceOnUse">
<rect class="inserted-ground" width="5" height="5"/><circle class="inserted-dot" cx="2.5" cy="2.5" r="1.2"/></pattern>
</defs></svg>
"""


def forest(index: int, value: float, low: float, high: float, *, scale: tuple[float, float]) -> str:
    """A difference and its interval on a scale that holds zero."""
    across = Axis(*scale, _PAD, WIDTH - _PAD)
    zero, left, right = across(0), across(low), across(high)
    return (
        f'{_open(20)}<path class="rule zero" d="M{zero:.1f} 0V20"/>'
        f'<path class="whisker {colour(index)}" d="M{left:.1f} 10H{right:.1f}M{left:.1f} 6v8M{right:.1f} 6v8"/>'
        f"{marker(index, across(value), 10)}</svg>"
    )


def forest_scale(scale: tuple[float, float], ticks: Sequence[float]) -> str:
    """The head of the column of ``forest``."""
    across = Axis(*scale, _PAD, WIDTH - _PAD)
    shown = "".join(
        f'<text class="tick-label" x="{across(tick):.1f}" y="11" text-anchor="middle">{_short(tick)}</text>'
        for tick in ticks
    )
    return f"{_open(14)}{shown}</svg>"


def stacked(shares: dict[str, float], *, top: float) -> str:
    """Substitutions, deletions and insertions end to end. Units: per cent of the reference words."""
    across = Axis(0, top, 0, WIDTH)
    start, bars = 0.0, []
    for metric, name in EDITS.items():
        end = start + shares[metric]
        left, right = across(start), across(end)
        bars.append(f'<rect class="{name}" x="{left:.1f}" y="2" width="{max(right - left, 0):.1f}" height="14"/>')
        start = end
    return f"{_open(18)}{''.join(bars)}</svg>"


def stacked_scale(top: float) -> str:
    """The head of the column of ``stacked``."""
    return (
        f'{_open(14)}<text class="tick-label" x="0" y="11">0</text>'
        f'<text class="tick-label" x="{WIDTH}" y="11" text-anchor="end">{top:g} %</text></svg>'
    )


def bar(value: float, low: float, high: float, *, top: float) -> str:
    """A rate as a bar with its interval as a line, as wide as its cell."""
    across = Axis(0, top, 0, 100)
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="ground" width="100" height="6"/><rect class="filled" width="{across(value):.1f}" height="6"/>'
        f'<rect class="range" x="{across(low):.1f}" y="2" width="{max(across(high) - across(low), 0.6):.1f}" height="2"/></svg>'
    )


def _open(height: int) -> str:
    return f'<svg class="strip" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" aria-hidden="true">'


def _short(value: float) -> str:
    return f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0"

"""How a system looks in every plot: a colour, a marker and a dash, so that none of them alone has to tell systems apart."""

from __future__ import annotations

from collections.abc import Sequence

from robust_asr.report.markup import escaped

NUM_COLOURS = 8
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "2 5", "6 2 2 2 2 2")
# Around the origin, about 8 units wide.
_MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.7 -3.7h7.4v7.4h-7.4z",
    "M0 -4.8L4.6 3.4H-4.6z",
    "M0 -5.2L4.6 0L0 5.2L-4.6 0z",
    "M0 4.8L4.6 -3.4H-4.6z",
    "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "M-4.6 -2.6L-2.6 -4.6L0 -2L2.6 -4.6L4.6 -2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0z",
    "M0 -5L4.8 -1.5L3 4.2H-3L-4.8 -1.5z",
)


def colour(index: int) -> str:
    """The class that sets the colour of a system."""
    return f"s{index % NUM_COLOURS}"


def dash(index: int) -> str:
    # With more systems than colours, a colour comes back with another dash and a hollow marker.
    pattern = _DASHES[(index + index // NUM_COLOURS) % len(_DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def marker(index: int, x: float, y: float) -> str:
    hollow = " hollow" if index // NUM_COLOURS % 2 else ""
    shape = _MARKERS[(index + index // NUM_COLOURS) % len(_MARKERS)]
    return f'<path class="marker{hollow} {colour(index)}" transform="translate({x:.1f} {y:.1f})" d="{shape}"/>'


def swatch(index: int) -> str:
    """A piece of the line of a system, for legends and heads of tables."""
    return (
        f'<svg class="swatch" viewBox="0 0 30 12" width="30" height="12" aria-hidden="true">'
        f'<path class="line {colour(index)}" d="M1 6H29"{dash(index)}/>{marker(index, 15, 6)}</svg>'
    )


def legend(systems: Sequence[str]) -> str:
    items = "".join(f"<li>{swatch(index)} {escaped(system)}</li>" for index, system in enumerate(systems))
    return f'<ul class="key">{items}</ul>'

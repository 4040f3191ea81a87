"""Numbers as people read them on the page; the CSV files hold them in full."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def rate(value: float, *, digits: int = 1) -> str:
    """Per cent with a fixed number of decimals; beyond six digits with three significant ones."""
    if not math.isfinite(value):
        return "undefined"
    shown = f"{value:.3g}" if abs(value) >= 1e6 else f"{value:.{digits}f}"
    # A zero has no sign.
    shown = shown.removeprefix("-") if float(shown) == 0 else shown
    return shown.replace("-", MINUS)


def short_rate(value: float) -> str:
    """Per cent for a remark: 0, 34.6."""
    return rate(value).removesuffix(".0")


def signed(value: float, *, digits: int = 1) -> str:
    shown = rate(value, digits=digits)
    return shown if value <= 0 or float(f"{value:.{digits}f}") == 0 else f"+{shown}"


def interval(low: float, high: float, *, digits: int = 1) -> str:
    return f"[{rate(low, digits=digits)}, {rate(high, digits=digits)}]"


def strength(value: object) -> str:
    """A strength, as short as it can be: 0.01, 1e-4, 35, unbounded."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return "0" if value == 0 else f"{float(mantissa):g}e{int(exponent)}".replace("-", MINUS)
    return f"{value:.6g}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """A duration in two units at most: 0.31 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 1000 else f"{hours:.3g} h"


def count(number: int, one: str, many: str | None = None) -> str:
    """1 utterance, 2,620 utterances."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: int, whole: int) -> float:
    """A part of a whole in per cent, 0 where the whole is zero."""
    return 100 * part / whole if whole else 0.0


def listed(items: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)

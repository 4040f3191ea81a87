"""The sections of plots: WER against strength, and how the errors spread over utterances."""

from __future__ import annotations

from robust_asr.report.blocks import figure, plain_table, section
from robust_asr.report.distributions import QUANTILES, Spread, distribution_plot, spreads
from robust_asr.report.grid import Grid
from robust_asr.report.labels import scale, title
from robust_asr.report.lines import Line, line_plot, lines_of
from robust_asr.report.numbers import interval, rate, strength
from robust_asr.report.series import legend
from robust_asr.results.families import Family


def strengths(grid: Grid) -> str:
    """One plot for each family of more than one strength; a second one where the attack has a target."""
    figures = []
    for part in grid.parts:
        for family in grid.families:
            for metric in ("WER", "TGT_WER"):
                drawn = lines_of(grid, family, part, metric=metric)
                if family.graded and drawn:
                    figures.append(_strength_figure(grid, family, part, drawn, metric))
    intro = (
        "Clean audio at the left end; the bands are 95 % intervals. Against the attacker's target, a high rate is the "
        "defender's success."
    )
    plots = f'<div class="plots">{"".join(figures)}</div>'
    return section("strength", "Strength", legend(grid.systems), plots, intro=intro) if figures else ""


def _strength_figure(grid: Grid, family: Family, part: str, drawn: list[Line], metric: str) -> str:
    against = "what was said" if metric == "WER" else "the attacker's target"
    caption = f"{title(family)}: WER against {against}" + (f", {part}" if len(grid.parts) > 1 else "")
    head = ["system", scale(family) or "strength", "WER, %", "95 % interval", "n"]
    rows = [
        [
            line.system,
            "clean" if point.strength is None else strength(point.strength),
            rate(point.value),
            interval(point.low, point.high),
            f"{point.n:,}{' (partial)' if point.partial else ''}",
        ]
        for line in drawn
        for point in line.estimates
    ]
    return figure(caption, line_plot(family, drawn, label=caption), plain_table(head, rows, caption=caption))


def distributions(grid: Grid) -> str:
    """One plot for each condition."""
    places = [(part, condition) for part in grid.parts for condition in grid.conditions]
    figures = [_spread_figure(grid, *place, drawn) for place in places if (drawn := spreads(grid, *place))]
    intro = (
        "Each dot is an utterance; box: 25th to 75th per cent; whiskers: 5th to 95th; thick line: median; "
        "dotted line: 100 %. The scales end at 100 or 200 %."
    )
    plots = f'<div class="plots">{"".join(figures)}</div>'
    return section("utterances", "Single utterances", plots, intro=intro) if figures else ""


def _spread_figure(grid: Grid, part: str, condition: str, drawn: list[Spread]) -> str:
    name = grid.label(condition) + (f", {part}" if len(grid.parts) > 1 else "")
    head = ["system", "n", *(label for label, _ in QUANTILES), "no words"]
    rows = [
        [
            spread.system,
            len(spread.rates),
            *(rate(spread.quantile(share), digits=0) for _, share in QUANTILES),
            spread.without_words,
        ]
        for spread in drawn
    ]
    return figure(name, distribution_plot(name, drawn), plain_table(head, rows, caption=name))

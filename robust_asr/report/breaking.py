"""The section of breaking points: the median of each system, and the share of the utterances that each budget breaks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robust_asr.report.blocks import figure, group_row, part_head, plain_table, scroll, section
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import rate, strength
from robust_asr.report.series import legend, swatch
from robust_asr.report.staircase import Staircase, staircase_plot
from robust_asr.results.breaking import BreakingPoints, Median, amplitude, breaking_points, median
from robust_asr.results.families import is_ratio

HEAD = (
    "system",
    "SNR, dB",
    "95 % interval",
    "amplitude",
    "95 % interval",
    "broken unperturbed",
    "below",
    "not broken",
    "n",
)
_INTRO = (
    "For each utterance, the smallest budget at which the attack breaks it, found by bisection: an upper bound, since a stronger "
    "attack may need less. The table has the median over utterances, as the SNR of a perturbation that fills the ball (<b>the "
    "lower, the more a system withstands</b>) and as amplitude. Utterances that are broken without a perturbation, or at the "
    "smallest budget, lie below the range that was searched, those that nothing breaks above it; they count as anything beyond "
    "its end. Where they leave the median open, it is written as a bound; a limit of an interval is then open too."
)


def breaking_section(grid: Grid) -> str:
    content = []
    for part in grid.parts:
        cells = [cell for cell in grid.breaking.values() if cell.part == part and cell.rows]
        names = list(dict.fromkeys(cell.condition for cell in cells))
        if names:
            figures = [_figure(grid, part, name, [cell for cell in cells if cell.condition == name]) for name in names]
            plots = f'<div class="plots">{"".join(figures)}</div>'
            content.append(part_head(grid, part) + _table(grid, names, cells) + legend(grid.systems) + plots)
    return section("breaking", "Breaking points", *content, intro=_INTRO) if content else ""


def breaking_cells(cell: Cell) -> list[str]:
    """The columns of a breaking point without markup: as the section's table, the report's Markdown and the terminal show them."""
    points = breaking_points(cell.rows)
    snr, level = median(points.snrs), median(points.levels)
    partial = f" of {cell.expected}" if cell.partial else ""
    excluded = f", {points.excluded} excluded" if points.excluded else ""
    censored = [str(points.unperturbed), str(points.smallest), str(points.beyond)]
    return [*decibels(snr), *amplitudes(level), *censored, f"{points.n}{partial}{excluded}"]


def decibels(found: Median | None) -> list[str]:
    """A median of SNRs and its interval."""
    if found is None:
        return ["undefined", ""]
    return [found.value.text(rate), f"[{_limit(found.low)}, {_limit(found.high)}]"]


def amplitudes(found: Median | None) -> list[str]:
    """A median of levels and its interval, as amplitudes."""
    if found is None:
        return ["undefined", ""]

    def shown(level: float) -> str:
        return "open" if math.isinf(level) and level > 0 else strength(float(f"{amplitude(level):.3g}"))

    return [found.value.text(shown), f"[{shown(found.low)}, {shown(found.high)}]"]


def _limit(value: float) -> str:
    return rate(value) if math.isfinite(value) else "open"


def _table(grid: Grid, names: list[str], cells: list[Cell]) -> str:
    body = []
    for name in names:
        about = grid.evaluation.conditions[name]["columns"]
        span = f"{about.get('norm')}, {about.get('strength')} {about.get('strength_unit')}"
        body.append(group_row(f'{escaped(about.get("attack"))} <span class="aside">{escaped(span)}</span>', len(HEAD)))
        for cell in (cell for cell in cells if cell.condition == name):
            mark = swatch(grid.systems.index(cell.system))
            columns = "".join(f'<td class="n">{escaped(text)}</td>' for text in breaking_cells(cell))
            body.append(f'<tr><th scope="row">{mark} {escaped(cell.system)}</th>{columns}</tr>')
    heads = "".join(f'<th scope="col"{" class=n" if place else ""}>{head}</th>' for place, head in enumerate(HEAD))
    label = "Breaking points of each system"
    caption = f'<caption class="unseen">{label}</caption>'
    return scroll(
        label, f'<table class="strips">{caption}<thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def _figure(grid: Grid, part: str, name: str, cells: list[Cell]) -> str:
    caption = f"{name}: share of the utterances that a budget breaks" + (f", {part}" if len(grid.parts) > 1 else "")
    # Every system of the report has a place, so that its colour is the same in every plot.
    known = {cell.system: breaking_points(cell.rows) for cell in cells}
    systems = [(system, known.get(system, breaking_points(()))) for system in grid.systems]
    return staircase_figure(caption, systems, falls=is_ratio(grid.evaluation.conditions[name]["columns"].get("norm")))


def staircase_figure(caption: str, systems: Sequence[tuple[str, BreakingPoints]], *, falls: bool) -> str:
    """The share of the utterances that each budget breaks, with its data; nothing where nothing was measured."""
    drawn = [
        Staircase.of(system, index, points, falls=falls) for index, (system, points) in enumerate(systems) if points.n
    ]
    rows = [
        [stairs.system, stairs.shown(level), rate(100 * share), len(stairs.levels)]
        for stairs in drawn
        for level, share in stairs.shares
    ]
    data = plain_table(["system", "SNR, dB" if falls else "amplitude", "broken, %", "n"], rows, caption=caption)
    return figure(caption, staircase_plot(drawn, label=caption), data) if drawn else ""


def breaking_sentences(grid: Grid) -> list[str]:
    """One sentence for each breaking point: the median of each system, from the one that withstands most."""
    sentences = []
    for part in grid.parts:
        where = f" on {part}" if len(grid.parts) > 1 else ""
        for name in dict.fromkeys(cell.condition for cell in grid.breaking.values()):
            found = [
                (middle, cell.system)
                for cell in grid.breaking.values()
                if (cell.condition, cell.part) == (name, part) and (middle := _snr(breaking_points(cell.rows)))
            ]
            found.sort(key=lambda pair: (pair[0].value.high, pair[0].value.low))
            each = ", ".join(f"{system} {middle.value.text(rate)} dB" for middle, system in found)
            if each:
                sentences.append(f"Median breaking point, {name}{where} (the lower, the more it withstands): {each}.")
    return sentences


def _snr(points: BreakingPoints) -> Median | None:
    return median(points.snrs)

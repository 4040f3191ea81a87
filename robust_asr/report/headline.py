"""The headline table: WER with its interval, capped and in inserted words, and how many transcripts were wrong or empty."""

from __future__ import annotations

import math

from robust_asr.report.blocks import chip, group_row, scroll
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.labels import scale, strength_of, title
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import interval, rate, short_rate
from robust_asr.report.series import swatch
from robust_asr.report.strips import bar
from robust_asr.results.families import Family, Point

# One full scale is 2**15 steps of 16 bits.
_STEPS = 32768


def headline_table(grid: Grid, part: str) -> str:
    """WER of each system (columns) under each condition (rows, weakest first)."""
    width = len(grid.systems) + 1
    heads = "".join(
        f'<th scope="col">{swatch(index)}<br>{escaped(name)}</th>' for index, name in enumerate(grid.systems)
    )
    top = max([100.0, *(cell.wer["ci_high"] for cell in grid.done() if cell.part == part)])
    body = []
    for name in grid.clean_on(part):
        body.append(_headline_row(grid, part, name, "clean audio" if name == grid.clean[0] else escaped(name), top))
    for family in grid.families_on(part):
        body.append(group_row(_family_head(family), width))
        body += [_headline_row(grid, part, point.condition, _point_head(family, point), top) for point in family.points]
    caption = f'<caption class="unseen">Word error rate on {escaped(part)}, per cent</caption>'
    content = (
        f'<table class="headline">{caption}<thead><tr><th scope="col">condition</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return scroll(f"Word error rates on {part}", content) + _emptier_notes(grid, part)


def emptier_chip(cell: Cell) -> str:
    """The mark of a gain that comes with emptier transcripts."""
    return chip("caution", "emptier") if cell.emptier else ""


def _emptier_notes(grid: Grid, part: str) -> str:
    cells = [cell for cell in grid.done() if cell.part == part and cell.emptier]
    notes = "".join(
        f"<li><b>{escaped(cell.system)}</b> under {escaped(grid.label(cell.condition))}: "
        f"{escaped(cell.emptier.sentence(grid.systems[0]))}.</li>"
        for cell in cells
    )
    return f'<ul class="remarks">{notes}</ul>' if notes else ""


def _headline_row(grid: Grid, part: str, condition: str, head: str, top: float) -> str:
    cells = [grid.cell(system, condition, part) for system in grid.systems]
    rates = {cell.wer["value"] for cell in cells if cell.rows}
    # Several systems may share the lowest rate; where all share it, it says nothing.
    lowest = min(rates) if len(rates) > 1 else None
    shown = "".join(_headline_cell(cell, top, lowest=lowest) for cell in cells)
    return f'<tr><th scope="row">{head}</th>{shown}</tr>'


def _headline_cell(cell: Cell, top: float, *, lowest: float | None) -> str:
    line = cell.wer
    if line is None:
        return '<td class="absent">not run</td>'
    empty, wrong = (short_rate(cell.lines[name]["value"]) for name in ("empty_hypotheses", "utterances_with_error"))
    capped, inserted = (rate(cell.lines[name]["value"]) for name in ("WER_capped", "insertions"))
    chips = chip("caution" if cell.emptier or cell.masked else "good", "lowest") if line["value"] == lowest else ""
    chips += chip("caution", f"partial: {len(cell.rows):,} of {cell.expected:,}") if cell.partial else ""
    chips += chip("bad", "masked gradient") if cell.masked else ""
    target = cell.lines.get("TGT_WER")
    aimed = f"<br>WER to target {rate(target['value'])}&nbsp;%" if target else ""
    rest = "; ".join(cell.remarks)
    return (
        f'<td><b>{rate(line["value"])}</b> <span class="ci">{interval(line["ci_low"], line["ci_high"])}</span> '
        f"{chips}{emptier_chip(cell)}{bar(line['value'], line['ci_low'], line['ci_high'], top=top)}"
        f'<span class="aside">capped&nbsp;{capped}&nbsp;%, inserted&nbsp;{inserted}&nbsp;%<br>'
        f"n&nbsp;{line['n']:,}, in&nbsp;error&nbsp;{wrong}&nbsp;%, empty&nbsp;{empty}&nbsp;%{aimed}"
        f"{f'<br>{escaped(rest)}' if rest else ''}</span></td>"
    )


def _family_head(family: Family) -> str:
    steps = "; dB of full scale and steps of 16 bits below it" if family.unit.startswith("amplitude") else ""
    units = f'<br><span class="aside">{escaped(scale(family))}{steps}</span>' if scale(family) else ""
    return f"{escaped(title(family))}{units}"


def _point_head(family: Family, point: Point) -> str:
    aside = ""
    if family.unit.startswith("amplitude") and point.strength and point.strength > 0:
        decibel = rate(20 * math.log10(point.strength), digits=0)
        aside = f'<br><span class="aside">{decibel} dB, {_steps(point.strength)} steps</span>'
    return escaped(strength_of(point)) + aside


def _steps(amplitude: float) -> str:
    steps = _STEPS * amplitude
    return f"{steps:,.0f}" if steps >= 10 else f"{steps:.2g}"

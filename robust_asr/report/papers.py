"""The papers' tables with our rows in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from robust_asr.report.blocks import details, group_row, scroll
from robust_asr.report.grid import Grid
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import interval, listed, rate
from robust_asr.results.papers import NOT_REPORTED, Column, ComparedRow, Comparison, compare

_TITLES = {
    "jayashankar_2020": "Jayashankar et al. 2020",
    "joshi_2022": "Joshi et al. 2022",
    "olivier_raj_2021": "Olivier and Raj 2021",
    "yang_2022": "Yang et al. 2022",
    "zelasko_2021": "\N{LATIN CAPITAL LETTER Z WITH DOT ABOVE}elasko et al. 2021",
}
_REMARKS = {"olivier_raj_2021": "The paper caps a WER at 100 %; ours is not capped here (summary.csv has WER_capped)."}


def paper_sections(grid: Grid) -> str:
    """One table for each paper's table that shares a column; those that share the clean audio alone are folded away."""
    comparisons = compare(grid.lines)
    opened = [_comparison(grid, each) for each in comparisons if each.shares_an_attack]
    folded = [_comparison(grid, each) for each in comparisons if not each.shares_an_attack]
    if folded:
        opened.append(details("Tables that share the clean audio alone", "".join(folded), kind="group"))
    return "".join(opened)


def _comparison(grid: Grid, compared: Comparison) -> str:
    """One table: our rows on top, where they are seen beside the head."""
    title = f"{_TITLES.get(compared.table.paper, compared.table.paper)}, {compared.table.table}"
    printed = sorted({row.eval_set for row in compared.rows if not row.is_ours})
    ours = sorted({row.eval_set for row in compared.rows if row.is_ours})
    remarks = [_REMARKS.get(compared.table.paper, ""), *compared.notes]
    notes = "".join(f"<li>{escaped(note)}</li>" for note in remarks if note)
    width = len(compared.columns) + 1
    mine = _rows(grid, compared, is_ours=True, name_set=len(ours) > 1)
    theirs = _rows(grid, compared, is_ours=False, name_set=len(printed) > 1)
    content = (
        f'<table class="papers">{_head(compared.columns)}<tbody class="ours">'
        f"{group_row(f'This evaluation, on {escaped(listed(ours))}', width)}{mine}</tbody><tbody>"
        f"{group_row(f'The paper, on {escaped(listed(printed))}', width)}{theirs}</tbody></table>"
    )
    return f"<h3>{escaped(title)}</h3>{scroll(title, content)}{f'<ul class=remarks>{notes}</ul>' if notes else ''}"


def _head(columns: Sequence[Column]) -> str:
    groups = [(key, list(members)) for key, members in groupby(columns, key=_kind)]
    upper = "".join(
        f'<th scope="colgroup" colspan="{len(members)}" class="kind">{_title(*key)}</th>' for key, members in groups
    )
    lower = "".join(f'<th scope="col" class="n">{escaped(_strength(key))}</th>' for key in columns)
    return f'<thead><tr><th rowspan="2" scope="col">system</th>{upper}</tr><tr>{lower}</tr></thead>'


def _kind(column: Column) -> tuple[str, str, str, str]:
    return column.attack, column.norm, column.strength_unit, column.metric


def _title(attack: str, norm: str, unit: str, metric: str) -> str:
    scale = ", ".join(part for part in (norm, unit) if part)
    name = "clean audio" if attack == "none" else attack
    return f'{escaped(name)}<br><span class="aside">{escaped(metric)}{f", {escaped(scale)}" if scale else ""}</span>'


def _strength(column: Column) -> str:
    return "\N{EN DASH}" if column.is_clean or not column.strength else column.strength


def _rows(grid: Grid, compared: Comparison, *, is_ours: bool, name_set: bool) -> str:
    return "".join(_row(grid, row, compared.columns, name_set) for row in compared.rows if row.is_ours == is_ours)


def _row(grid: Grid, row: ComparedRow, columns: Sequence[Column], name_set: bool) -> str:
    remarks = ", ".join(part for part in (row.about, row.eval_set if name_set else "") if part)
    aside = f'<br><span class="aside">{escaped(remarks)}</span>' if remarks else ""
    cells = "".join(f'<td class="n">{_value(grid, row, column)}</td>' for column in columns)
    return f'<tr><th scope="row">{escaped(row.system)}{aside}</th>{cells}</tr>'


def _value(grid: Grid, row: ComparedRow, column: Column) -> str:
    value = row.values.get(column)
    if not row.is_ours:
        return escaped(value or NOT_REPORTED)
    if value is None:
        return '<span class="aside">not run</span>'
    between = interval(value["ci_low"], value["ci_high"])
    cell = grid.cell(value["system"], value["condition"], value["eval_set"])
    partial = " (partial)" if cell.partial else ""
    return f'<b>{rate(value["value"])}</b><br><span class="aside">{between}<br>n {value["n"]:,}{partial}</span>'

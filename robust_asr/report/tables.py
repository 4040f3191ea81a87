"""The tables of the page behind the headline: paired differences, kinds of errors, cost, and every number of the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from robust_asr.report.axes import nice_top, span, steps
from robust_asr.report.blocks import chip, details, group_row, plain_table, scroll, table
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.headline import emptier_chip
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import count, duration, interval, listed, rate, signed
from robust_asr.report.series import swatch
from robust_asr.report.strips import EDITS, forest, forest_scale, stacked, stacked_scale
from robust_asr.results.summary import COLUMNS, DIFFERENCE_COLUMNS


def difference_table(grid: Grid, part: str) -> str:
    """WER of each system minus that of the first, paired; one row for each system in each condition."""
    cells = [cell for cell in grid.done() if cell.part == part and cell.difference]
    low = min([0.0, *(cell.difference["ci_low"] for cell in cells)])
    high = max([0.0, *(cell.difference["ci_high"] for cell in cells)])
    left, right, step = span(low, high)
    head = [
        "system",
        "difference",
        "95 % interval",
        "n",
        forest_scale((left, right), steps(left, right, step)),
        "reads",
    ]

    def row(cell: Cell, index: int) -> list[str]:
        line = cell.difference
        strip = forest(index, line["value"], line["ci_low"], line["ci_high"], scale=(left, right))
        reads = chip("good", "fewer errors") if line["ci_high"] < 0 else chip("bad", "more errors")
        reads = chip("plain", "spans zero") if line["ci_low"] <= 0 <= line["ci_high"] else reads
        between = interval(line["ci_low"], line["ci_high"])
        return [signed(line["value"]), between, f"{line['n']:,}", strip, reads + emptier_chip(cell)]

    return _by_condition(grid, part, head, cells, row, label=f"Paired differences on {part}")


def edits_table(grid: Grid, part: str) -> str:
    """What kinds of errors the WER consists of."""
    cells = [cell for cell in grid.done() if cell.part == part]
    top, _ = nice_top(max([1.0, *(cell.wer["value"] for cell in cells)]))
    head = ["system", "substituted", "deleted", "inserted", "empty", stacked_scale(top)]

    def row(cell: Cell, index: int) -> list[str]:
        shares = {metric: cell.lines[metric]["value"] for metric in EDITS}
        empty = cell.lines["empty_hypotheses"]["value"]
        return [*(rate(shares[metric]) for metric in EDITS), rate(empty), stacked(shares, top=top)]

    label = f"Kinds of errors on {part}, per cent of the reference words"
    return _by_condition(grid, part, head, cells, row, label=label)


def cost_table(grid: Grid, part: str) -> str:
    """What each cell took to compute: time, and passes of the recogniser that the attacker spent on an utterance."""
    cells = {(cell.condition, cell.system): cell for cell in grid.done() if cell.part == part}
    head = ["condition", *(f"{swatch(index)} {escaped(name)}" for index, name in enumerate(grid.systems))]
    rows = [
        [escaped(grid.label(condition)), *(_cost(cells.get((condition, system))) for system in grid.systems)]
        for condition in grid.conditions_on(part)
    ]
    return scroll(f"Cost on {part}", table(head, rows, caption=f"Cost on {part}", texts=len(head)), kind="cost")


def full_tables(grid: Grid) -> str:
    """Every line of summary.csv and differences.csv."""
    summary = plain_table(COLUMNS, ([_shown(line.get(name)) for name in COLUMNS] for line in grid.lines))
    tables = details(
        f"summary.csv: {count(len(grid.lines), 'line')}", scroll("All lines of summary.csv", summary, kind="dense")
    )
    if grid.differences:
        lines = ([_shown(line.get(name)) for name in DIFFERENCE_COLUMNS] for line in grid.differences)
        paired = scroll("All lines of differences.csv", plain_table(DIFFERENCE_COLUMNS, lines), kind="dense")
        tables += details(f"differences.csv: {count(len(grid.differences), 'line')}", paired)
    return tables


def _cost(cell: Cell | None) -> str:
    if cell is None:
        return '<span class="absent">not run</span>'
    seconds, audio = (sum(row[name] for row in cell.rows) for name in ("seconds", "audio_seconds"))
    relative = f"{seconds / audio:.2g} s" if audio > 0 else "undefined"
    forwards, iterations = (sum(row[name] for row in cell.rows) / len(cell.rows) for name in ("forwards", "iterations"))
    spent = f"; {forwards:.4g} forwards, {iterations:.4g} iterations" if forwards or iterations else ""
    payers = sorted({row["paid_by"] for row in cell.rows if row.get("paid_by")})
    spent += f"; the attack was paid by {escaped(listed(payers))}" if payers else ""
    winners = Counter(row["member"] for row in cell.rows if row.get("member"))
    spent += (
        f"; won by {escaped(', '.join(f'{name}: {num}' for name, num in winners.most_common()))}" if winners else ""
    )
    return f'{duration(seconds)} <span class="aside">{relative} per second of audio{spent}</span>'


def _by_condition(
    grid: Grid,
    part: str,
    head: Sequence[str],
    cells: Sequence[Cell],
    row: Callable[[Cell, int], list[str]],
    *,
    label: str,
) -> str:
    """A table with a heading row for each condition; ``row(cell, place of its system)`` gives the cells after the system."""
    body = []
    for condition in grid.conditions_on(part):
        rows = [cell for cell in cells if cell.condition == condition]
        if rows:
            body.append(group_row(escaped(grid.label(condition)), len(head)))
        body += [_row(cell, row(cell, grid.systems.index(cell.system)), grid) for cell in rows]
    heads = "".join(f'<th scope="col"{_number(cell)}>{cell}</th>' for cell in head)
    caption = f'<caption class="unseen">{escaped(label)}</caption>'
    return scroll(
        label, f'<table class="strips">{caption}<thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def _row(cell: Cell, content: Sequence[str], grid: Grid) -> str:
    mark = swatch(grid.systems.index(cell.system))
    cells = "".join(f"<td{_number(text)}>{text}</td>" for text in content)
    return f'<tr><th scope="row">{mark} {escaped(cell.system)}</th>{cells}</tr>'


def _number(cell: str) -> str:
    """Numbers and their heads stand at the right, drawings and remarks at the left."""
    return "" if cell.startswith("<") or cell in ("system", "reads") else ' class="n"'


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)

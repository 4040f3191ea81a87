"""The text that the command prints: the verdict and a line for each cell."""

from __future__ import annotations

from collections.abc import Sequence

from robust_asr.report.breaking import HEAD, breaking_cells
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.numbers import MINUS, interval, rate
from robust_asr.report.verdict import failures, progress, verdict
from robust_asr.text.terminal import printable

# Heads of the columns beside each WER -> their metrics.
_BESIDE = {
    "capped": "WER_capped",
    "inserted": "insertions",
    "in error": "utterances_with_error",
    "empty": "empty_hypotheses",
}


def terminal_text(grid: Grid) -> str:
    """Plain text; no character of a name moves the cursor or colours the screen."""
    lines = []
    for part in grid.parts:
        cells = [
            grid.cell(system, condition, part) for condition in grid.conditions_on(part) for system in grid.systems
        ]
        table = [[part, "system", "WER, %", "95 % interval", *_BESIDE, "n", ""], *map(_cells, cells)]
        numbers = aligned([row[:-1] for row in table], texts=2)
        lines += [f"{line}  {row[-1]}".rstrip() for line, row in zip(numbers, table, strict=True)] + [""]
        lines += _breaking(grid, part)
    return "\n".join(map(printable, [*lines, *progress(grid), *failures(grid), *verdict(grid)])).replace(MINUS, "-")


def _breaking(grid: Grid, part: str) -> list[str]:
    cells = [cell for cell in grid.breaking.values() if cell.part == part and cell.rows]
    if not cells:
        return []
    table = [
        [f"{part}, breaking points", *HEAD],
        *([cell.condition, cell.system, *breaking_cells(cell)] for cell in cells),
    ]
    return [*aligned([[printable(cell) for cell in row] for row in table], texts=2), ""]


def aligned(table: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """The lines of a table; from column ``texts`` on, cells stand at the right."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return [
        "  ".join(f"{cell:{'<' if place < texts else '>'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in table
    ]


def _cells(cell: Cell) -> list[str]:
    names = [printable(cell.condition), printable(cell.system)]
    if cell.wer is None:
        return [*names, "not run", *[""] * (len(_BESIDE) + 3)]
    marks = [cell.note] if cell.note else []
    marks += ["gain with emptier transcripts"] if cell.emptier else []
    line = cell.wer
    return [
        *names,
        rate(line["value"]),
        interval(line["ci_low"], line["ci_high"]),
        *(rate(cell.lines[metric]["value"]) for metric in _BESIDE.values()),
        str(line["n"]),
        "; ".join(marks),
    ]

"""The same tables as Markdown, for a README or an issue. No character of a name becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from robust_asr.report.breaking import HEAD, breaking_cells
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.numbers import MINUS, interval, rate, signed
from robust_asr.report.verdict import failures, progress, verdict
from robust_asr.text.terminal import printable

# A backslash before any of these makes it a plain character; an address stays text without its colon or dot.
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#|~&$!@:+=^\"'-]|(?<=www)\.)", re.IGNORECASE)


# What stands beside each WER.
_BESIDE = ("WER_capped", "insertions", "utterances_with_error", "empty_hypotheses")


def plain(value: object) -> str:
    """A text with its markup escaped, so that Markdown shows it letter by letter."""
    return _MARKUP.sub(r"\\\1", printable(str(value)))


def markdown_text(grid: Grid, title: str) -> str:
    """Verdict, WER, paired differences and kinds of errors."""
    blocks = [f"# {plain(title)}", plain(" ".join([*progress(grid), *failures(grid), *verdict(grid)]))]
    for part in grid.parts:
        blocks += [f"## {plain(part)}: WER, % [95 % interval]", _headline(grid, part)]
        differences = grid.gains(part)
        if differences:
            head = ["condition", "system", "minus", "difference", "95 % interval", "n"]
            rows = [
                [
                    *(plain(line[name]) for name in ("condition", "system", "baseline")),
                    signed(line["value"]),
                    _between(line),
                    line["n"],
                ]
                for line in differences
            ]
            blocks += [f"## {plain(part)}: paired differences in WER, points", _table(head, rows, texts=3)]
        breaking = [cell for cell in grid.breaking.values() if cell.part == part and cell.rows]
        if breaking:
            rows = [[plain(cell.condition), plain(cell.system), *map(plain, breaking_cells(cell))] for cell in breaking]
            blocks += [f"## {plain(part)}: breaking points, medians", _table(["condition", *HEAD], rows, texts=2)]
        blocks += [f"## {plain(part)}: kinds of errors, % of the reference words", _edits(grid, part)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _headline(grid: Grid, part: str) -> str:
    rows = []
    for condition in grid.conditions_on(part):
        cells = [grid.cell(system, condition, part) for system in grid.systems]
        rows.append([plain(condition), *(_cell(cell) for cell in cells)])
    return _table(["condition", *map(plain, grid.systems)], rows)


def _cell(cell: Cell) -> str:
    if cell.wer is None:
        return "not run"
    capped, inserted, wrong, empty = (rate(cell.lines[name]["value"]) for name in _BESIDE)
    marks = [f"partial, of {cell.expected}"] if cell.partial else []
    marks += ["gain with emptier transcripts"] if cell.emptier else []
    marks += cell.remarks
    parts = [f"{rate(cell.wer['value'])} {_between(cell.wer)}", f"n {cell.wer['n']}"]
    parts += [f"capped {capped}", f"inserted {inserted}", f"in error {wrong} %", f"empty {empty} %"]
    return ", ".join([*parts, *marks])


def _edits(grid: Grid, part: str) -> str:
    metrics = ("substitutions", "deletions", "insertions")
    rows = [
        [plain(cell.condition), plain(cell.system), *(rate(cell.lines[metric]["value"]) for metric in metrics)]
        for condition in grid.conditions_on(part)
        for system in grid.systems
        if (cell := grid.cell(system, condition, part)).rows
    ]
    return _table(["condition", "system", *metrics], rows, texts=2) if rows else ""


def _between(line: dict) -> str:
    return interval(line["ci_low"], line["ci_high"]).replace("[", r"\[").replace("]", r"\]")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], *, texts: int = 1) -> str:
    rule = ["---" if place < texts else "---:" for place in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace(MINUS, '-') for cell in line)} |" for line in lines)

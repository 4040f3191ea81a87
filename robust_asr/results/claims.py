"""``python -m robust_asr.results.claims FILE...``: which claims hold, by one rule, from committed differences.

A claim names a paired difference, a direction and a margin that was chosen before the difference was seen, in points of WER, or in
dB of the SNR at which utterances break. It **holds** if the whole 95 % interval lies where the claim says, it **fails** if no point
of the interval does, and is **undecidable** otherwise. A claim of several lines, such as one on every budget, holds if each line
holds and fails if one fails.

The file is a CSV table beside the recipes. Its columns: ``claim``; ``results``, a ``differences.csv`` relative to the file;
``condition``, ``system`` and ``baseline``, which name one line of it; ``direction`` and ``margin``. A claim on a rate itself has
the direction ``above`` or ``below``, and the rate in per cent as its margin: ``results`` is a ``summary.csv``, and ``baseline``
its metric.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from robust_asr.results.csv_cells import decode
from robust_asr.results.summary import COLUMNS as SUMMARY_COLUMNS
from robust_asr.results.summary import DIFFERENCE_COLUMNS
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, printable, say

HOLDS, FAILS, UNDECIDABLE = "holds", "fails", "undecidable"
COLUMNS = "claim results condition system baseline direction margin".split()
# Direction -> the differences that it allows, from the margin in points.
DIRECTIONS = {
    "lower": lambda margin: (-math.inf, -margin),
    "higher": lambda margin: (margin, math.inf),
    "not lower": lambda margin: (-margin, math.inf),
    "not higher": lambda margin: (-math.inf, margin),
    "equal": lambda margin: (-margin, margin),
    "above": lambda rate: (rate, math.inf),
    "below": lambda rate: (-math.inf, rate),
}
# Directions of a rate itself.
_LEVELS = ("above", "below")


class Found(NamedTuple):
    """WER of ``system`` minus that of ``baseline`` under ``condition``, in points, and its 95 % interval; or their paired breaking
    points, in dB; or a rate of ``system`` in per cent, whose metric stands in the place of the baseline.
    """

    condition: str
    system: str
    baseline: str
    value: float | str
    low: float
    high: float
    n: int
    unit: str


@dataclass(frozen=True)
class Line:
    """One difference or rate that a claim speaks of, and what it says of it."""

    claim: str
    direction: str
    margin: float
    found: Found
    verdict: str


def verdict(low: float, high: float, *, direction: str, margin: float) -> str:
    """``holds``, ``fails`` or ``undecidable`` for an interval of a difference.

    Errors: ValueError for a direction that there is not, a negative margin, or limits that are no interval.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, found {direction!r}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be a number of points, 0 or more, found {margin}")
    if not low <= high:
        raise ValueError(f"an interval goes from its lower to its upper limit, found [{low}, {high}]")
    least, most = DIRECTIONS[direction](margin)
    if (least < low or math.isinf(least)) and (high < most or math.isinf(most)):
        return HOLDS
    return FAILS if high <= least or low >= most else UNDECIDABLE


def together(verdicts: Sequence[str]) -> str:
    """The verdict of a claim of several lines: it holds if all do, and fails if one does."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if all(each == HOLDS for each in verdicts) else UNDECIDABLE


def read_claims(path: str | Path) -> dict[str, list[Line]]:
    """Claim -> its lines, in the order of the file.

    Errors: ValueError names the file, the line, the field and what is accepted.
    """
    path = Path(path)
    claims: dict[str, list[Line]] = {}
    for number, row in _rows(path, COLUMNS):
        where = f"{path}, line {number}"
        asked = {"direction": row["direction"], "margin": _number(row, "margin", where)}
        look = _rate if row["direction"] in _LEVELS else _difference
        found = look(path.parent / row["results"], row, where)
        try:
            reads = verdict(found.low, found.high, **asked)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        claims.setdefault(row["claim"], []).append(Line(row["claim"], **asked, found=found, verdict=reads))
    return claims


def table(claims: dict[str, list[Line]]) -> str:
    """Markdown: the verdict of each claim, and the differences that it rests on."""
    lines = ["| claim | asked, points | found, points | n | verdict |", "|---|---|---|---|---|"]
    for claim, members in claims.items():
        asked = dict.fromkeys(f"{member.direction}, {member.margin:g}" for member in members)
        sizes = dict.fromkeys(str(member.found.n) for member in members)
        reached = together([member.verdict for member in members])
        cells = (claim, "; ".join(asked), "; ".join(_found(members)), ", ".join(sizes), f"**{reached}**")
        lines.append("| " + " | ".join(printable(cell).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def _found(members: Sequence[Line]) -> Iterator[str]:
    """What was found for each pair of systems, or system and metric; what each line reads by itself, where they differ."""
    differ = len({member.verdict for member in members}) > 1
    for (system, baseline, is_rate), lines in groupby(members, key=_whose):
        shown = [
            f"{line.found.condition} {_shown(line.found.value, signed=not is_rate)} "
            f"[{line.found.low:.1f}, {line.found.high:.1f}]{' dB' * (line.found.unit == 'dB')}"
            + (f" {line.verdict}" if differ else "")
            for line in lines
        ]
        yield f"{f'{baseline} of {system}' if is_rate else f'{system} minus {baseline}'}: {', '.join(shown)}"


def _shown(value: float | str, *, signed: bool) -> str:
    return value if isinstance(value, str) else f"{value:{'+' if signed else ''}.1f}"


def _whose(line: Line) -> tuple[str, str, bool]:
    return line.found.system, line.found.baseline, line.direction in _LEVELS


def _difference(path: Path, named: dict[str, str], where: str) -> Found:
    """The one line of a ``differences.csv`` that a claim names; the two systems may stand there the other way round."""
    columns = ("condition", "system", "baseline")
    wanted = tuple(named[name] for name in columns)
    turned = wanted[0], wanted[2], wanted[1]
    found = [
        (number, row, sign)
        for number, row in _rows(path, DIFFERENCE_COLUMNS)
        for place, sign in ((wanted, 1), (turned, -1))
        if tuple(str(decode(row[name])) for name in columns) == place
    ]
    return _one(found, named, path, where)


def _rate(path: Path, named: dict[str, str], where: str) -> Found:
    """The one line of a ``summary.csv`` that a claim names."""
    wanted = {"condition": named["condition"], "system": named["system"], "metric": named["baseline"]}
    found = [
        (number, row, 1)
        for number, row in _rows(path, SUMMARY_COLUMNS)
        if {name: str(decode(row[name])) for name in wanted} == wanted
    ]
    return _one(found, named, path, where)


def _one(found: list[tuple[int, dict[str, str], int]], named: dict[str, str], path: Path, where: str) -> Found:
    """The numbers of the line, times its sign, if it is one."""
    wanted = [named[name] for name in ("condition", "system", "baseline")]
    if len(found) != 1:
        what = ", ".join(f"{name} {named[name]!r}" for name in ("condition", "system", "baseline"))
        raise ValueError(f"{where}: must name one line of {path}, found {len(found)} with {what}")
    ((number, row, sign),) = found
    inside = f"{path}, line {number}"
    bound = decode(row["value"])
    # The median of censored breaking points may be a bound, such as "> 0.1", which has no sign to turn.
    open_value = isinstance(bound, str) and row["unit"] == "dB" and sign > 0
    value = bound if open_value else sign * _number(row, "value", inside)
    low, high = sorted(sign * _number(row, name, inside, finite=False) for name in ("ci_low", "ci_high"))
    return Found(*wanted, value, low, high, int(_number(row, "n", inside)), row["unit"])


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a CSV file under these columns, with their numbers."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != columns:
                found = ",".join(reader.fieldnames or ())
                raise ValueError(f"{path}: must begin with the columns {','.join(columns)}, found {found[:200]!r}")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: must hold {len(columns)} cells")
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is not a table in UTF-8 ({error})") from error


def _number(row: dict[str, str], name: str, where: str, *, finite: bool = True) -> float:
    """A number of a table. A limit may be infinite: censored breaking points leave it open."""
    value = decode(row[name])
    if isinstance(value, str) or math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{where}: {name} must be a{' finite' if finite else ''} number, found {row[name]!r}")
    return float(value)


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.results.claims",
        description="Which claims hold, fail or cannot be decided, as a table in Markdown.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="claims.csv beside the recipes")
    chosen = parser.parse_args(arguments)
    try:
        tables = [table(read_claims(file)) for file in chosen.files]
    except (ValueError, OSError) as error:
        leave(error)
    say(*"\n\n".join(tables).split("\n"))


if __name__ == "__main__":
    main()

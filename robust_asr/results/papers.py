"""The result tables of the papers, exactly as printed, and our numbers beside them.

A join by (attack, norm, strength, strength_unit, metric). The test sets differ: the papers' numbers say what order and trend to
expect, and a rate on one test set cannot be placed between rates on another.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from importlib import resources
from typing import Any, NamedTuple

from robust_asr.results.families import is_clean

NOT_REPORTED = "-"


class Column(NamedTuple):
    """The columns that two numbers share if they can be compared. Clean audio and strength zero are one column."""

    attack: str
    norm: str
    strength: str
    strength_unit: str
    metric: str

    @property
    def is_clean(self) -> bool:
        return self.attack == "none"


@dataclass(frozen=True)
class PaperTable:
    """``cells`` are the lines of the CSV file, every value a text as printed."""

    name: str
    paper: str
    table: str
    cells: tuple[dict[str, str], ...] = field(repr=False)


@dataclass(frozen=True)
class ComparedRow:
    """One system. ``values``: column -> the printed text, or for ours the line of the summary."""

    system: str
    about: str
    eval_set: str
    is_ours: bool
    values: dict[Column, Any] = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """A table of a paper with our rows in it; ``shared`` are the columns of both. ``notes`` are remarks on printed values."""

    table: PaperTable
    columns: tuple[Column, ...]
    shared: frozenset[Column]
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]

    @property
    def shares_an_attack(self) -> bool:
        return any(not column.is_clean for column in self.shared)


def read_tables() -> tuple[PaperTable, ...]:
    """All tables, in the order of their file names."""
    folder = resources.files("robust_asr.results") / "paper_results"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".csv")), key=lambda file: file.name)
    return tuple(_read(file.name, file.read_text(encoding="utf-8")) for file in files)


def column(line: Mapping[str, Any]) -> Column:
    """The column of a line, a paper's or ours."""
    attack, norm, strength, unit = (_text(line.get(name)) for name in ("attack", "norm", "strength", "strength_unit"))
    metric = _text(line.get("metric"))
    if is_clean({"attack": attack, "norm": norm, "strength": strength}):
        return Column("none", "", "", "", "WER" if metric == "GT_WER" else metric)
    return Column(attack, norm, strength, unit, metric)


def compare(lines: Iterable[Mapping[str, Any]], tables: Sequence[PaperTable] | None = None) -> list[Comparison]:
    """For each table that shares a column with our lines: its columns of the shared attacks and metrics, with our rows.

    Tables that share more than the clean audio come first.
    """
    ours = list(lines)
    have = {column(line) for line in ours}
    comparisons = [_compare(table, ours, have) for table in (read_tables() if tables is None else tables)]
    return sorted((each for each in comparisons if each), key=lambda each: not each.shares_an_attack)


def average(values: Iterable[str]) -> Decimal:
    """The exact mean of printed numbers. Errors: ValueError names the text that is no number."""
    numbers = []
    for value in values:
        try:
            numbers.append(Decimal(value))
        except InvalidOperation as error:
            raise ValueError(f"no average of {value!r}: not a printed number") from error
    return sum(numbers, Decimal(0)) / len(numbers)


def _read(name: str, text: str) -> PaperTable:
    cells = tuple(csv.DictReader(text.splitlines()))
    return PaperTable(name.removesuffix(".csv"), cells[0]["paper"], cells[0]["table"], cells)


def _compare(table: PaperTable, ours: Sequence[Mapping[str, Any]], have: set[Column]) -> Comparison | None:
    printed = list(dict.fromkeys(column(cell) for cell in table.cells))
    shared = have & set(printed)
    if not shared:
        return None
    kinds = {(key.attack, key.norm, key.strength_unit, key.metric) for key in shared}
    columns = [key for key in printed if (key.attack, key.norm, key.strength_unit, key.metric) in kinds or key.is_clean]
    columns.sort(key=lambda key: not key.is_clean)
    rows = [*_paper_rows(table, columns), *_our_rows(ours, columns)]
    noted = [cell for cell in table.cells if cell["note"] and column(cell) in columns]
    notes = dict.fromkeys(f"{cell['system']}: {cell['note']}" for cell in noted)
    return Comparison(table, tuple(columns), frozenset(shared), tuple(rows), tuple(notes))


def _paper_rows(table: PaperTable, columns: Sequence[Column]) -> list[ComparedRow]:
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for cell in table.cells:
        if column(cell) in columns:
            groups.setdefault(tuple(cell[name] for name in ("row", "system", "model", "eval_set")), []).append(cell)
    # A model that every row shares is not repeated in each of them.
    models, labels = {model for _, _, model, _ in groups}, [system for _, system, _, _ in groups]
    rows = []
    for (_, system, model, eval_set), cells in groups.items():
        sigma = _agreed(cells, "sigma") if labels.count(system) > 1 else ""
        about = [
            model if len(models) > 1 and model.lower() not in system.lower() else "",
            f"sigma {sigma}" if sigma else "",
        ]
        values = {column(cell): cell["value"] for cell in cells}
        rows.append(ComparedRow(system, ", ".join(part for part in about if part), eval_set, False, values))
    return rows


def _our_rows(lines: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[ComparedRow]:
    """One row for each system, part and state of the attacker's knowledge; the clean audio stands in each of them."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    clean: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        if column(line) in columns:
            place = (line["system"], line["eval_set"])
            if column(line).is_clean:
                clean.setdefault(place, []).append(line)
            else:
                groups.setdefault((*place, _text(line.get("knowledge"))), []).append(line)
    for place in clean:
        if not any(group[:2] == place for group in groups):
            groups[(*place, "")] = []
    rows = []
    for (system, eval_set, knowledge), members in groups.items():
        members = [*clean.get((system, eval_set), ()), *members]
        # The first line of a column counts: no attack comes before noise of size zero.
        values = {column(line): line for line in reversed(members)}
        about = _about(members) + (f", attacker's knowledge {knowledge}" if knowledge not in ("", "exact") else "")
        rows.append(ComparedRow(system, about, eval_set, True, values))
    return rows


def _about(cells: Sequence[Mapping[str, Any]]) -> str:
    """Model, defence and sigma, as far as all cells of a row agree on them."""
    model, defense, sigma = (_agreed(cells, name) for name in ("model", "defense", "sigma"))
    parts = [model, defense if defense != "none" else "", f"sigma {sigma}" if sigma not in ("", "0") else ""]
    return ", ".join(part for part in parts if part)


def _agreed(cells: Sequence[Mapping[str, Any]], name: str) -> str:
    values = {_text(cell.get(name)) for cell in cells}
    return values.pop() if len(values) == 1 else ""


def _text(value: Any) -> str:
    """A text that is the same for equal numbers: 0.0001 is 1e-4."""
    if value is None:
        return ""
    text = str(value).strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return f"{number.normalize():f}" if number.is_finite() and abs(number.adjusted()) < 40 else text

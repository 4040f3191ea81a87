"""The numbers of a report, computed once: a cell for each part, condition and system, whether or not it was run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from robust_asr.checks.verdicts import Check
from robust_asr.report.labels import label
from robust_asr.report.runs import Run, Runs
from robust_asr.results import Cell as Place
from robust_asr.results import Evaluation, Row
from robust_asr.results.breaking import is_breaking, without_breaking
from robust_asr.results.emptier import Emptier, emptier_cells
from robust_asr.results.families import Family, clean_conditions, families
from robust_asr.results.summary import remarks, summary_of, with_status
from robust_asr.types import Status

Line = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One system under one condition on one part. ``lines``: metric -> its line of the summary; empty where nothing was run.

    ``expected`` is 0 where no run asks for it: of several runs each asks for its own.
    """

    system: str
    condition: str
    part: str
    expected: int
    rows: tuple[Row, ...] = field(repr=False)
    lines: dict[str, Line] = field(repr=False)
    difference: Line | None = None
    emptier: Emptier | None = None

    @property
    def wer(self) -> Line | None:
        """The line of its word error rate against what was said."""
        return self.lines.get("GT_WER") or self.lines.get("WER")

    @property
    def partial(self) -> bool:
        return 0 < len(self.rows) < self.expected

    @property
    def note(self) -> str:
        return self.wer["note"] if self.wer else ""

    @property
    def remarks(self) -> list[str]:
        """Sentences on the utterances on which the attack did not run as it should."""
        return remarks(self.rows)

    @property
    def masked(self) -> int:
        """The number of utterances whose every gradient was zero."""
        return with_status(self.rows, Status.MASKED_GRADIENT)


@dataclass(frozen=True)
class Grid:
    """Everything that a report shows.

    Attributes:
        differences: those of all pairs of systems.
        cells: those of conditions with one budget, whose error rates can be compared.
        breaking: those of breaking points.
    """

    runs: Runs
    lines: tuple[Line, ...]
    differences: tuple[Line, ...]
    cells: dict[Place, Cell]
    breaking: dict[Place, Cell]

    @property
    def evaluation(self) -> Evaluation:
        return self.runs.evaluation

    @property
    def systems(self) -> list[str]:
        return list(self.evaluation.systems)

    @property
    def parts(self) -> list[str]:
        return list(self.evaluation.parts)

    @property
    def checks(self) -> tuple[Check, ...]:
        return self.runs.checks

    @cached_property
    def families(self) -> tuple[Family, ...]:
        return families(without_breaking(self.evaluation.conditions))

    @cached_property
    def clean(self) -> list[str]:
        return clean_conditions(without_breaking(self.evaluation.conditions))

    @cached_property
    def conditions(self) -> list[str]:
        """Clean audio first, then each family from its weakest to its strongest."""
        return [*self.clean, *(point.condition for family in self.families for point in family.points)]

    def clean_on(self, part: str) -> list[str]:
        return [name for name in self.clean if self._asks(part, name)]

    def conditions_on(self, part: str) -> list[str]:
        """Those of ``conditions`` that a run asks for on this part."""
        return [name for name in self.conditions if self._asks(part, name)]

    def families_on(self, part: str) -> list[Family]:
        """Those of ``families`` that a run asks for on this part, with the points that it asks for."""
        kept = [
            replace(family, points=tuple(point for point in family.points if self._asks(part, point.condition)))
            for family in self.families
        ]
        return [family for family in kept if family.points]

    def _asks(self, part: str, condition: str) -> bool:
        return any(self.cell(system, condition, part).expected for system in self.systems)

    def gains(self, part: str) -> list[Line]:
        """The differences of error rates to the first system."""
        to_first = (
            line for line in self.differences if (line["eval_set"], line["baseline"]) == (part, self.systems[0])
        )
        return [line for line in to_first if line["condition"] in self.conditions]

    def cell(self, system: str, condition: str, part: str) -> Cell:
        return self.cells[system, condition, part]

    def done(self) -> Iterator[Cell]:
        return (cell for cell in self.cells.values() if cell.rows)

    def unfinished(self) -> list[Run]:
        return [run for run in self.runs.runs if len(run.evaluation.rows) < run.expected]

    def label(self, condition: str) -> str:
        """A condition in words, for a place that has no head of a column."""
        return self._labels.get(condition, condition)

    @cached_property
    def _labels(self) -> dict[str, str]:
        labels = {point.condition: label(family, point) for family in self.families for point in family.points}
        return labels | {name: "clean audio" for name in self.clean[:1]}

    def clean_cell(self, part: str, system: str) -> Cell | None:
        """The cell of the clean audio, None where it was not run."""
        return next((cell for name in self.clean if (cell := self.cell(system, name, part)).rows), None)


def tabulate(runs: Runs) -> Grid:
    evaluation = runs.evaluation
    (lines, paired), emptier = summary_of(evaluation), emptier_cells(evaluation)
    by_cell: dict[Place, dict[str, Line]] = {}
    for line in lines:
        by_cell.setdefault(_place(line), {})[line["metric"]] = line
    gains = {_place(line): line for line in paired if line["baseline"] == next(iter(evaluation.systems))}
    places = [(s, c, p) for p in evaluation.parts for c in evaluation.conditions for s in evaluation.systems]
    cells = {
        place: Cell(
            *place,
            expected=evaluation.parts[place[2]]["num_utterances"] if place in runs.asked else 0,
            rows=tuple(evaluation.select(*place)),
            lines=by_cell.get(place, {}),
            difference=gains.get(place),
            emptier=emptier.get(place),
        )
        for place in places
    }
    breaking = {place: cell for place, cell in cells.items() if is_breaking(evaluation.conditions[place[1]])}
    cells = {place: cell for place, cell in cells.items() if place not in breaking}
    return Grid(runs, tuple(lines), tuple(paired), cells, breaking)


def _place(line: Line) -> Place:
    return line["system"], line["condition"], line["eval_set"]

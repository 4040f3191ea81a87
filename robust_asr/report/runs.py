"""The runs of a report, joined into one evaluation: different systems of one name get the names of their runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from robust_asr.checks.rows.agreement import check_agreement
from robust_asr.checks.store import read_checks
from robust_asr.checks.verdicts import Check
from robust_asr.results import DESCRIPTION, Cell, Evaluation, Key, Row, key, read_description, read_evaluation

_KINDS = ("system", "condition", "part")


@dataclass(frozen=True)
class Run:
    """One run folder. ``expected`` counts the rows that its description asks for; ``about`` holds its other fields."""

    name: str
    evaluation: Evaluation
    about: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def expected(self) -> int:
        utterances = sum(part["num_utterances"] for part in self.evaluation.parts.values())
        return len(self.evaluation.systems) * len(self.evaluation.conditions) * utterances


@dataclass(frozen=True)
class Runs:
    """Several runs as one evaluation.

    ``asked``: the (system, condition, part) that some run asks for. ``origins``: key of a row -> the folder and the key under
    which its run has it.
    """

    runs: tuple[Run, ...]
    evaluation: Evaluation
    checks: tuple[Check, ...]
    asked: frozenset[Cell] = field(repr=False)
    origins: dict[Key, tuple[Path, Key]] = field(repr=False)


def read_runs(run_dirs: Sequence[str | Path]) -> Runs:
    """Read and join run folders; an evaluation may still write to them.

    Systems of one name are one system where their hashes are equal and they heard the same wherever two runs asked the same.
    Conditions of one name are one condition where their hashes agree; parts are one part where their sizes, hashes and all
    recordings that both hold agree.

    Errors: ValueError names the file, or the folder that was given twice.
    """
    return join(read_each(run_dirs))


def read_each(run_dirs: Sequence[str | Path]) -> list[Run]:
    """The runs, each by itself. Errors: ValueError names the file, or the folder that was given twice."""
    folders = [Path(run_dir) for run_dir in run_dirs]
    if not folders:
        raise ValueError("name at least one run folder")
    resolved = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise ValueError(f"{folder} is named twice: a report holds a run once")
    return [_read_run(folder, name) for folder, name in zip(folders, run_names(resolved), strict=True)]


def begin_with(system: str, runs: Runs) -> Runs:
    """The same with ``system`` before the others. ValueError names those there are."""
    systems = runs.evaluation.systems
    if system not in systems:
        raise ValueError(f"first: there is no system {system!r}, found {', '.join(systems) or 'none'}")
    return replace(runs, evaluation=replace(runs.evaluation, systems={system: systems[system]} | systems))


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ, without what all of them end in."""
    parts = [folder.parts for folder in folders]
    while len(parts) > 1 and len({path[-1:] for path in parts}) == 1 and all(len(path) > 1 for path in parts):
        parts = [path[:-1] for path in parts]
    depth = next(depth for depth in range(1, 2**16) if len({path[-depth:] for path in parts}) == len(parts))
    return ["/".join(path[-depth:]).lstrip("/") or "/" for path in parts]


def join(runs: Sequence[Run]) -> Runs:
    """One evaluation of all rows; the rows keep the order of parts, conditions and systems over the runs."""
    names = {kind: _joined_names(kind, runs) for kind in _KINDS}
    entries: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
    rows: list[Row] = []
    origins: dict[Key, tuple[Path, Key]] = {}
    for index, run in enumerate(runs):
        for kind in _KINDS:
            for name, content in _entries(run, kind).items():
                entries[kind].setdefault(names[kind][index][name], content)
        for row in run.evaluation.rows:
            renamed = row | {kind: names[kind][index][row[kind]] for kind in _KINDS}
            # A row that two runs hold counts once: their answers were the same.
            if origins.setdefault(key(renamed), (run.evaluation.run_dir, key(row)))[0] == run.evaluation.run_dir:
                rows.append(renamed)
    places = {kind: {name: place for place, name in enumerate(entries[kind])} for kind in _KINDS}
    rows.sort(key=lambda row: (*(places[kind][row[kind]] for kind in ("part", "condition", "system")), row["id"]))
    folder = runs[0].evaluation.run_dir
    evaluation = Evaluation(folder, entries["system"], entries["condition"], entries["part"], tuple(rows))
    joined = {run.name: {kind: names[kind][index] for kind in _KINDS} for index, run in enumerate(runs)}
    named = [(run.name, check) for run in runs for check in run.checks]
    named += check_agreement({run.name: run.evaluation for run in runs})
    checks = [check.renamed(joined[run]) for run, check in named]
    asked = frozenset(
        place
        for run, *renamed in zip(runs, *(names[kind] for kind in _KINDS), strict=True)
        for place in product(*(each.values() for each in renamed))
    )
    return Runs(tuple(runs), evaluation, tuple(checks), asked, origins)


def _read_run(folder: Path, name: str) -> Run:
    evaluation = read_evaluation(folder)
    content = read_description(folder) or {}
    about = {field: value for field, value in content.items() if field not in ("systems", "conditions", "parts")}
    try:
        # With indentation, as the page shows it, JSON is limited in depth.
        json.dumps(content, indent=1, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / DESCRIPTION}: cannot be shown ({error})") from error
    return Run(name, evaluation, about, read_checks(folder))


def _entries(run: Run, kind: str) -> dict[str, dict[str, Any]]:
    return getattr(run.evaluation, f"{kind}s")


def _joined_names(kind: str, runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run, its names -> those of the report."""
    joined: list[dict[str, str]] = []
    for run in runs:
        renamed = {}
        for name in _entries(run, kind):
            holders = [other for other in runs if name in _entries(other, kind)]
            shared = len(holders) == 1 or _SAME[kind](name, holders)
            renamed[name] = name if shared else f"{name} ({run.name})"
        joined.append(renamed)
    _check_distinct(kind, runs, joined)
    return joined


def _check_distinct(kind: str, runs: Sequence[Run], joined: Sequence[dict[str, str]]) -> None:
    origin: dict[str, str] = {}
    for run, renamed in zip(runs, joined, strict=True):
        for name, new in renamed.items():
            if origin.setdefault(new, name) != name:
                raise ValueError(
                    f"{run.evaluation.run_dir}: its {kind} {name!r} would be {new!r}, as one of another run is"
                )


def _same_condition(name: str, runs: Sequence[Run]) -> bool:
    return len({run.evaluation.conditions[name]["hash"] for run in runs}) == 1


def _same_part(name: str, runs: Sequence[Run]) -> bool:
    abouts = [run.evaluation.parts[name] for run in runs]
    recordings: dict[str, str] = {}
    return all(about == abouts[0] for about in abouts) and all(
        recordings.setdefault(utterance, content) == content
        for run in runs
        for utterance, content in _recordings(run, name)
    )


def _recordings(run: Run, part: str) -> Iterator[tuple[str, str]]:
    for row in run.evaluation.rows:
        if row["part"] == part:
            yield row["id"], row["hashes"].get("data", "")


def _same_system(name: str, runs: Sequence[Run]) -> bool:
    """The same weights and settings, which heard the same wherever two runs asked it the same."""
    heard: dict[tuple[str, ...], str] = {}
    return len({run.evaluation.systems[name]["hash"] for run in runs}) == 1 and all(
        heard.setdefault(place, hypothesis) == hypothesis for run in runs for place, hypothesis in _heard(run, name)
    )


def _heard(run: Run, system: str) -> Iterator[tuple[tuple[str, ...], str]]:
    for row in run.evaluation.rows:
        if row["system"] == system:
            condition = run.evaluation.conditions[row["condition"]]["hash"]
            yield (condition, row["hashes"].get("data", ""), row["id"]), row["hypothesis"]


_SAME: dict[str, Callable[[str, Sequence[Run]], bool]] = {
    "system": _same_system,
    "condition": _same_condition,
    "part": _same_part,
}

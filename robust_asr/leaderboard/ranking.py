"""Which systems can be compared, and in which order they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robust_asr.report.runs import Run
from robust_asr.results import DESCRIPTION, Row, digest
from robust_asr.results.breaking import (
    BreakingPoints,
    Median,
    amplitude,
    breaking_points,
    is_breaking,
    median,
    paired_snr,
    without_breaking,
)
from robust_asr.results.families import clean_conditions
from robust_asr.results.summary import cell_metrics

COLUMNS = (
    "table rank system run breaking_SNR ci_low ci_high breaking_amplitude behind_first behind_low behind_high below not_broken n "
    "excluded clean_WER clean_low clean_high forwards_per_transcript attack_forwards checks_failed checks_passed attack norm "
    "strength strength_unit broken eval_set utterances"
).split()


@dataclass(frozen=True)
class Terms:
    """What two breaking points must share to be ranked in one table, in words that a reader compares.

    Attributes:
        attack: its name, which holds the version of the standard evaluation and its forwards.
        budgets: norm, smallest and largest budget.
        broken: what counts as broken.
        settings, utterances: hashes of all settings, and of the utterances with their recordings and texts.
    """

    attack: str
    knowledge: str
    budgets: str
    broken: str
    settings: str
    utterances: str

    def differences(self, other: Terms) -> list[str]:
        """What is not the same there; of the settings only where nothing else tells the two apart."""
        words = {
            "attack": "another attack or another version or budget of it",
            "knowledge": "another knowledge of the attacker",
            "budgets": "another range of budgets",
            "broken": "another threshold",
            "utterances": "other utterances",
        }
        found = [text for name, text in words.items() if getattr(self, name) != getattr(other, name)]
        return found or ["other settings of the attack"] * (self.settings != other.settings)


@dataclass(frozen=True)
class Entry:
    """One system in one run.

    Attributes:
        rows: those of its breaking points.
        clean: the line of its WER on clean audio, None where the run has none on these utterances.
        per_transcript: passes of one transcript, None where the record does not say.
        failed, passed: the checks that concern the system, None where the run was not checked.
        behind: the median of its breaking SNRs minus those of the first of the table, paired.
    """

    system: str
    hash: str
    runs: tuple[str, ...]
    part: str
    rows: tuple[Row, ...]
    clean: Mapping[str, Any] | None
    per_transcript: int | None
    failed: int | None
    passed: int | None
    behind: Median | None = None

    @property
    def points(self) -> BreakingPoints:
        return breaking_points(self.rows)

    @property
    def snr(self) -> Median | None:
        return median(self.points.snrs)

    @property
    def attack_forwards(self) -> float:
        """The passes that finding the breaking point of an utterance took, on average."""
        return sum(row["forwards"] for row in self.rows) / len(self.rows)

    @property
    def place(self) -> tuple[float, float, str]:
        """The key of the order: the lower the SNR at which it breaks, the better; a bound comes before the number it bounds."""
        snr = self.snr
        limits = (snr.value.high, snr.value.low) if snr else (float("inf"), float("inf"))
        return (*limits, self.system)


@dataclass(frozen=True)
class Table:
    """Systems that were measured on the same terms, the most robust first. ``columns`` are those of their condition."""

    terms: Terms
    columns: Mapping[str, Any]
    entries: tuple[Entry, ...]

    def lines(self, number: int) -> Iterator[dict[str, Any]]:
        """The lines of the CSV file. A number that censored utterances leave open is a text such as "> 30"."""
        for place, entry in enumerate(self.entries, start=1):
            points, snr, level, clean = entry.points, entry.snr, median(entry.points.levels), entry.clean or {}
            yield {
                "table": number,
                "rank": place,
                "system": entry.system,
                "run": ", ".join(entry.runs),
                **_cells(snr, ("breaking_SNR", "ci_low", "ci_high")),
                "breaking_amplitude": level and _value(level, amplitude),
                **_cells(entry.behind, ("behind_first", "behind_low", "behind_high")),
                **{"below": points.below, "not_broken": points.beyond, "n": points.n, "excluded": points.excluded},
                **{f"clean_{name}": clean.get(cell) for name, cell in _CLEAN.items()},
                "forwards_per_transcript": entry.per_transcript,
                "attack_forwards": entry.attack_forwards,
                **{"checks_failed": entry.failed, "checks_passed": entry.passed},
                **{name: self.columns.get(name) for name in ("attack", "norm", "strength", "strength_unit")},
                **{"broken": self.terms.broken, "eval_set": entry.part, "utterances": self.terms.utterances},
            }


_CLEAN = {"WER": "value", "low": "ci_low", "high": "ci_high"}


def rank(runs: Sequence[Run]) -> list[Table]:
    """A table for all systems that were measured on the same terms: attack, budgets, threshold, settings and utterances.

    What was measured on other terms is never compared: it stands in a table of its own. A system that several runs measured
    alike stands there once.

    Errors: ValueError names the run that holds no breaking point.
    """
    tables: dict[Terms, tuple[dict[str, Any], list[Entry]]] = {}
    for run in runs:
        found = list(_entries(run))
        if not found:
            known = ", ".join(run.evaluation.conditions) or "none"
            raise ValueError(
                f"{run.evaluation.run_dir / DESCRIPTION}: a leaderboard takes runs with a breaking point that has rows, found the "
                f"conditions {known}; recipes/quickstart/breaking.yaml has one"
            )
        for terms, columns, entry in found:
            _add(tables.setdefault(terms, (columns, []))[1], entry)
    return [Table(terms, columns, _ordered(entries)) for terms, (columns, entries) in tables.items()]


def _entries(run: Run) -> Iterator[tuple[Terms, dict[str, Any], Entry]]:
    evaluation = run.evaluation
    clean = clean_conditions(without_breaking(evaluation.conditions))
    for condition, about in evaluation.conditions.items():
        for part in evaluation.parts if is_breaking(about) else ():
            for system, described in evaluation.systems.items():
                rows = evaluation.select(system, condition, part)
                if rows:
                    heard = [row for name in clean[:1] for row in evaluation.select(system, name, part)]
                    entry = Entry(
                        system,
                        described["hash"],
                        (run.name,),
                        part,
                        tuple(rows),
                        _wer(heard, rows),
                        described.get("forwards_per_transcript"),
                        *_verdicts(run, system),
                    )
                    yield _terms(about, rows), about["columns"], entry


def _terms(about: Mapping[str, Any], rows: Sequence[Row]) -> Terms:
    columns = about["columns"]
    names = ("attack", "knowledge", "breaking")
    attack, knowledge, broken = (str(columns.get(name) or "") for name in names)
    budgets = " ".join(str(columns.get(name) or "") for name in ("norm", "strength", "strength_unit"))
    utterances = [[row["id"], row["reference"], row["hashes"].get("data")] for row in rows]
    return Terms(attack, knowledge, budgets, broken, digest([columns, about.get("description")]), digest(utterances))


def _wer(heard: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any] | None:
    """WER on the same utterances; None where some of them were not heard clean."""
    known = {row["id"]: row for row in heard}
    if any(row["id"] not in known for row in rows):
        return None
    return cell_metrics([known[row["id"]] for row in rows], attacked=False)[0]


def _verdicts(run: Run, system: str) -> tuple[int | None, int | None]:
    """The checks that failed and passed, of the system and of the whole run."""
    own = [check.verdict for check in run.checks if check.system in ("", system)]
    return (own.count("fail"), own.count("pass")) if run.checks else (None, None)


def _add(entries: list[Entry], entry: Entry) -> None:
    for place, other in enumerate(entries):
        if (other.system, other.hash) == (entry.system, entry.hash) and _measured(other) == _measured(entry):
            entries[place] = replace(other, runs=(*other.runs, *entry.runs))
            return
    entries.append(entry)


def _measured(entry: Entry) -> list[tuple[Any, ...]]:
    return [
        tuple(row.get(name) for name in ("id", "breaking", "breaking_amplitude", "hypothesis")) for row in entry.rows
    ]


def _ordered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    first, *others = sorted(entries, key=lambda entry: entry.place)
    return first, *(replace(entry, behind=paired_snr(entry.rows, first.rows)) for entry in others)


def _cells(found: Median | None, names: Sequence[str]) -> dict[str, Any]:
    return dict(zip(names, (_value(found), found.low, found.high), strict=True)) if found else {}


def _value(found: Median, shown: Callable[[float], float] = float) -> float | str:
    return shown(found.value.low) if found.value.exact else found.value.text(lambda each: f"{shown(each):.4g}")

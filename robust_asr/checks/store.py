"""``checks.json``, which the report shows, and the live verdicts, which cannot be made again from rows alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from robust_asr.checks.verdicts import VERDICTS, Check, condensed
from robust_asr.results import Evaluation
from robust_asr.storage import strict_json
from robust_asr.storage.files import written_whole

CHECKS = "checks.json"
LIVE = "live_checks.json"
# The hashes of the system and of the condition that were checked; "" for the condition where the system alone was.
Pair = tuple[str, str]


def write_checks(run_dir: Path, checks: Iterable[Check]) -> None:
    """Write ``checks.json``, whole or not at all, for the report: condensed, failures first within each question."""
    _write(run_dir / CHECKS, [asdict(check) for check in condensed(checks)])


def write_live(run_dir: Path, verdicts: Mapping[Pair, list[Check]]) -> None:
    """Keep live verdicts beside the rows, whole or not at all; those of pairs that are not in ``verdicts`` stay."""
    kept = {**_read(run_dir / LIVE), **verdicts}
    entries = [
        {"system": system, "condition": condition, "checks": [asdict(check) for check in checks]}
        for (system, condition), checks in kept.items()
    ]
    _write(run_dir / LIVE, entries)


def read_live(run_dir: Path, evaluation: Evaluation | None = None) -> dict[Pair, list[Check]]:
    """The live verdicts of a run folder, or those on the systems and conditions that an evaluation holds now.

    Errors: ValueError names the file where it is not what ``write_live`` wrote.
    """
    kept = _read(run_dir / LIVE)
    if evaluation is None:
        return kept
    systems = {entry["hash"] for entry in evaluation.systems.values()}
    conditions = {"", *(entry["hash"] for entry in evaluation.conditions.values())}
    return {pair: checks for pair, checks in kept.items() if pair[0] in systems and pair[1] in conditions}


def _write(path: Path, content: list[dict[str, Any]]) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_checks(run_dir: Path) -> tuple[Check, ...]:
    """The checks of a run folder, () where it holds none. Errors: ValueError names the file and the entry."""
    path = run_dir / CHECKS
    if not path.exists():
        return ()
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, list):
        raise ValueError(f"{path}: must hold a list of checks, found a {type(content).__name__}")
    return tuple(_check(entry, f"{path}, check {number}") for number, entry in enumerate(content, start=1))


def _read(path: Path) -> dict[Pair, list[Check]]:
    if not path.exists():
        return {}
    try:
        entries = strict_json.loads(path.read_text(encoding="utf-8"))
        return {
            (str(entry["system"]), str(entry["condition"])): [_check(content, "a check") for content in entry["checks"]]
            for entry in entries
        }
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: is not a list of live checks ({error}); delete it to have them made again"
        ) from error


def _check(entry: Any, where: str) -> Check:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a map, found a {type(entry).__name__}")
    values = {field.name: entry.get(field.name) for field in fields(Check)}
    values = {name: "" if value is None else value for name, value in values.items()}
    for name, value in values.items():
        if not isinstance(value, str) and not (name == "value" and isinstance(value, bool | int | float)):
            raise ValueError(f"{where}: field {name!r} must be a text, found {str(value)[:40]!r}")
    if not values["name"] or values["verdict"] not in VERDICTS:
        given = f"name {values['name'][:40]!r}, verdict {values['verdict'][:40]!r}"
        raise ValueError(f"{where}: needs a name and a verdict of {', '.join(VERDICTS)}; found {given}")
    return Check(**values)

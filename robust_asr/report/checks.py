"""Verdicts of automatic checks of an evaluation, as a run folder may hold them in ``checks.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

CHECKS = "checks.json"
VERDICTS = ("fail", "not run", "pass")


@dataclass(frozen=True)
class Check:
    """One check of one cell. ``system``, ``condition``, ``value`` and ``detail`` are "" where there is none."""

    name: str
    verdict: str
    system: str = ""
    condition: str = ""
    value: str | int | float = ""
    detail: str = ""

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Check:
        """The same verdict under the names of a report."""
        system, condition = (
            names[kind].get(getattr(self, kind), getattr(self, kind)) for kind in ("system", "condition")
        )
        return replace(self, system=system, condition=condition)


def read_checks(run_dir: Path) -> tuple[Check, ...]:
    """The checks of a run folder, () where it holds none. Errors: ValueError names the file and the entry."""
    path = run_dir / CHECKS
    if not path.exists():
        return ()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, list):
        raise ValueError(f"{path}: must hold a list of checks, found a {type(content).__name__}")
    return tuple(_check(path, number, entry) for number, entry in enumerate(content, start=1))


def _check(path: Path, number: int, entry: Any) -> Check:
    if not isinstance(entry, dict):
        raise ValueError(f"{path}, check {number}: must be a map, found a {type(entry).__name__}")
    values = {field.name: entry.get(field.name) for field in fields(Check)}
    values = {name: "" if value is None else value for name, value in values.items()}
    for name, value in values.items():
        if not isinstance(value, str) and not (name == "value" and isinstance(value, bool | int | float)):
            raise ValueError(f"{path}, check {number}: field {name!r} must be a text, found {str(value)[:40]!r}")
    if not values["name"] or values["verdict"] not in VERDICTS:
        found = f"name {values['name'][:40]!r}, verdict {values['verdict'][:40]!r}"
        raise ValueError(f"{path}, check {number}: needs a name and a verdict of {', '.join(VERDICTS)}; found {found}")
    return Check(**values)

"""A table of one's own: a line for each utterance, with the path of its audio and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from datamodules.preparing.parts import Finding, Part
from datamodules.preparing.tables import Columns, Table, add_row

DEFAULTS = Columns(path="path", text="text", id="id", speaker="speaker", part="part")
_NEEDED = ("path", "text")


def read_parts(
    file: Path, names: Sequence[str] | None, *, root: Path | None = None, columns: dict[str, str | None] | None = None
) -> list[Part]:
    """The parts that the column of parts names; without one, all utterances are one part with the name of the file.

    Args:
        names: parts to read; by default all.
        root: folder that paths are relative to and may not leave; by default that of the file.
        columns: names of columns by what they hold; None, and what is missing, stands for ``DEFAULTS``.

    Errors: ValueError names the file and what it lacks.
    """
    if not file.is_file():
        raise ValueError(f"{file} is not a file")
    root = file.parent if root is None else root
    given = {kind: name for kind, name in (columns or {}).items() if name is not None}
    chosen = replace(DEFAULTS, **given)
    try:
        table = Table(file, [name for kind, name in _by_kind(chosen).items() if kind in _NEEDED or kind in given])
    except ValueError as error:
        raise ValueError(f"{error}; options such as --text-column name columns") from error
    # The other columns have their usual names or are not there.
    chosen = replace(chosen, **{kind: None for kind, name in _by_kind(chosen).items() if name not in table.columns})
    table = Table(file, chosen.named())
    parts: dict[str, Part] = {}
    faults = Part(root, file.stem, is_asked_for=False)
    for row in table.rows():
        part = file.stem if chosen.part is None or row.fault else row.fields[chosen.part]
        fault = row.fault or _fault_of_part(part)
        if fault is not None:
            faults.findings.append(Finding(faults.relative(file), f"{row.where} {fault}", num_others=1))
        elif names is None or part in names:
            add_row(parts.setdefault(part, Part(root, part)), row, file, chosen, folder=root)
    if unknown := sorted(set(names or ()) - parts.keys()):
        raise ValueError(f"parts: {', '.join(unknown)} not in {file}")
    if not parts and not faults.findings:
        raise ValueError(f"{file} has no lines after its header")
    faults.is_asked_for = not parts
    return [*parts.values(), *([faults] if faults.findings else [])]


def _by_kind(columns: Columns) -> dict[str, str]:
    return {field.name: getattr(columns, field.name) for field in fields(columns)}


def _fault_of_part(name: str) -> str | None:
    """The name becomes that of files."""
    is_name = (
        name and name.isprintable() and not name.startswith(".") and not {"/", "\\"} & set(name) and len(name) <= 100
    )
    return None if is_name else f"names the part {name!r}; up to 100 printable characters without / are accepted"

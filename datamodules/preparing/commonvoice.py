"""Common Voice's layout: a language's folder with ``train.tsv``, ``dev.tsv``, ``test.tsv`` and others, and ``clips``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.preparing.files import is_audio
from datamodules.preparing.parts import Part
from datamodules.preparing.tables import Columns, Row, Table, add_row, good_rows, tables_of

# The others hold clips of these parts again, or clips that nobody confirmed.
PARTS = ("train", "dev", "test")
_COLUMNS = Columns(path="path", text="sentence", speaker="client_id")
_CLIPS = "clips"


def read_parts(corpus: Path, names: Sequence[str] | None) -> list[Part]:
    """The parts that are asked for, or those of train, dev and test that are there. The id of a clip is its name.

    Errors: ValueError names the folder or table, and what it lacks.
    """
    tables = tables_of(corpus, {path.stem: path for path in sorted(corpus.glob("*.tsv"))}, names, PARTS, "*/train.tsv")
    if not (corpus / _CLIPS).is_dir():
        raise ValueError(f"the corpus {corpus} has no folder {_CLIPS}")
    return [_read_part(corpus, name, path) for name, path in tables.items()]


def _read_part(corpus: Path, name: str, path: Path) -> Part:
    table = Table(path, _COLUMNS.named(), delimiters="\t")
    part = Part(corpus, name)
    for row in good_rows(part, table):
        add_row(part, _with_ending(row), path, _COLUMNS, folder=corpus / _CLIPS)
    return part


def _with_ending(row: Row) -> Row:
    """Early releases name clips without their ending."""
    name = row.fields[_COLUMNS.path]
    return (
        row if not name or is_audio(Path(name)) else replace(row, fields={**row.fields, _COLUMNS.path: f"{name}.mp3"})
    )

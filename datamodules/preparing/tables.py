"""Tables of utterances: one line names the audio, the text and the speaker of each. Common Voice, VoxPopuli and one's own."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.preparing.parts import Finding, Part
from datamodules.preparing.text_files import text_lines

# A quoted field may hold line ends. One that is not closed within so many lines is a mistake, and swallows nothing.
_MOST_LINES = 20
_DELIMITERS = ("\t", ",", ";", "|")


@dataclass(frozen=True)
class Columns:
    """Names of the columns; what is None is not asked for."""

    path: str
    text: str
    id: str | None = None
    speaker: str | None = None
    part: str | None = None

    def named(self) -> list[str]:
        return [name for name in (self.path, self.text, self.id, self.speaker, self.part) if name is not None]


@dataclass(frozen=True)
class Row:
    """A line of a table: where it stands, and its fields by column, or what is wrong with it."""

    where: str
    fields: dict[str, str]
    fault: str | None = None


class Table:
    """A file with a header; only the columns that are asked for are kept.

    Fields end at a tab, or at a comma, semicolon or bar and may be quoted then; whichever makes the header hold the columns.

    Errors: ValueError names the file and what it lacks.
    """

    def __init__(self, path: Path, wanted: Sequence[str], *, delimiters: Sequence[str] = _DELIMITERS) -> None:
        self.path = path
        self._lines = _lines_of(path)
        _, header = next(((number, line) for number, line in self._lines if line is None or line.strip()), (0, ""))
        if not header:
            raise ValueError(f"{path}: has no header in UTF-8 that names its columns")
        headers = {delimiter: _names(header, delimiter) for delimiter in delimiters}
        self.delimiter = max(delimiters, key=lambda each: (len(set(wanted) & set(headers[each])), len(headers[each])))
        self.columns = headers[self.delimiter]
        if missing := [name for name in wanted if name not in self.columns]:
            raise ValueError(
                f"{path}: has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, self.columns))}"
            )
        if twice := [name for name in wanted if self.columns.count(name) > 1]:
            raise ValueError(f"{path}: has several columns {twice[0]!r}")
        self._places = {name: self.columns.index(name) for name in wanted}

    def rows(self) -> Iterator[Row]:
        """Every line after the header that is not blank."""
        waiting: list[tuple[int, str | None]] = []
        while (first := waiting.pop(0) if waiting else next(self._lines, None)) is not None:
            number, line = first
            if line is None:
                yield Row(f"line {number}", {}, "is not UTF-8")
            elif line.strip():
                fields = self._fields(line, waiting)
                yield self._row(f"line {number}", fields)

    def _fields(self, line: str, waiting: list[tuple[int, str | None]]) -> list[str] | str:
        """The fields of a line, with the next ones where a quote is open; or what is wrong."""
        if self.delimiter == "\t":
            return line.split("\t")
        record, used = line, 0
        while (fields := _quoted_fields(record, self.delimiter)) is None:
            if used == len(waiting) and (following := next(self._lines, None)) is not None:
                waiting.append(following)
            if used == len(waiting) or used == _MOST_LINES or waiting[used][1] is None:
                return "opens a quote that is not closed, or goes on after it"
            record += "\n" + waiting[used][1]
            used += 1
        del waiting[:used]
        return fields

    def _row(self, where: str, fields: list[str] | str) -> Row:
        if isinstance(fields, str):
            return Row(where, {}, fields)
        while len(fields) > len(self.columns) and not fields[-1].strip():
            fields.pop()
        if len(fields) > len(self.columns) or len(fields) <= max(self._places.values()):
            return Row(where, {}, f"has {len(fields)} fields, the header has {len(self.columns)}")
        return Row(where, {name: fields[place].strip() for name, place in self._places.items()})


def add_row(part: Part, row: Row, table: Path, columns: Columns, *, folder: Path) -> None:
    """Adds the utterance of a row to a part; its path is relative to ``folder``. What is wrong is a finding.

    Without a column of ids the id is the path below ``folder`` without its ending.
    """
    transcript = part.relative(table)
    path = audio_path(part.root, folder, row.fields[columns.path])
    if isinstance(path, str):
        part.findings.append(Finding(transcript, f"{row.where}: {path}", num_others=1))
        return
    utterance = row.fields[columns.id] if columns.id else "-".join(_below(path, folder).with_suffix("").parts)
    if not utterance or not utterance.isprintable() or "/" in utterance:
        message = f"{row.where}: the id {utterance!r} is not printable characters without /"
        part.findings.append(Finding(transcript, message, num_others=1))
    elif part.add(utterance, " ".join(row.fields[columns.text].split()), transcript=transcript, where=row.where):
        part.audio[utterance] = path
        if columns.speaker and row.fields[columns.speaker]:
            part.speakers[utterance] = row.fields[columns.speaker]


def audio_path(root: Path, folder: Path, name: str) -> Path | str:
    """The path that a table names, or what is wrong with it. It is not looked for here."""
    if not name or "\0" in name:
        return "names no audio"
    if "\\" in name:
        return f"names the audio '{name}'; folders must be separated by /"
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(root)):
        return f"names the audio '{name}', which lies outside of the corpus {root}"
    return path


def _below(path: Path, folder: Path) -> Path:
    folder = Path(os.path.normpath(folder))
    return path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)


def _lines_of(path: Path) -> Iterator[tuple[int, str | None]]:
    try:
        yield from text_lines(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _names(header: str, delimiter: str) -> list[str]:
    fields = header.split(delimiter) if delimiter == "\t" else _quoted_fields(header, delimiter)
    return [field.strip() for field in fields or [header]]


def _quoted_fields(record: str, delimiter: str) -> list[str] | None:
    """None where a quote is not closed, or something follows it."""
    try:
        # One string of several lines: the reader takes lines from what it iterates.
        rows = list(csv.reader([record], delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def good_rows(part: Part, table: Table) -> Iterator[Row]:
    """The rows that can be read; the others are findings of the part."""
    for row in table.rows():
        if row.fault is None:
            yield row
        else:
            part.findings.append(Finding(part.relative(table.path), f"{row.where} {row.fault}", num_others=1))


def tables_of(
    corpus: Path, there: dict[str, Path], names: Sequence[str] | None, usual: Sequence[str], elsewhere: str
) -> dict[str, Path]:
    """The tables of the parts that are asked for, or of the usual ones that are there.

    Args:
        elsewhere: pattern of a table below the folder that is meant, if another one was named.

    Errors: ValueError names the folder and what is in it.
    """
    if not corpus.is_dir():
        raise ValueError(f"the corpus {corpus} is not a folder")
    if unknown := sorted(set(names or ()) - there.keys()):
        raise ValueError(f"parts: {', '.join(unknown)} not in {corpus}; it has {', '.join(there) or 'none'}")
    chosen = [name for name in (usual if names is None else dict.fromkeys(names)) if name in there]
    if not chosen:
        folders = sorted(str(path.parent) for path in corpus.glob(elsewhere))
        hint = f"; name one of {', '.join(folders)}" if folders else f"; it has {', '.join(there) or 'no table'}"
        raise ValueError(f"the corpus {corpus} has no table of {', '.join(usual)}{hint}")
    return {name: there[name] for name in chosen}

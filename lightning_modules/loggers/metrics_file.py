"""metrics.csv: one row a step, on disk as soon as it is measured."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from robust_asr.results.csv_cells import Value, decode, encode
from robust_asr.storage.files import errors_naming, write_all, written_whole

_INDEX = ("step", "epoch")


def read_metrics(path: str | Path) -> list[dict[str, Value]]:
    """The rows of a metrics file in the order of their steps, without the cells that are empty.

    A last line that a kill cut short is left out. Errors: ValueError names the line that is no row.
    """
    columns, rows = _read(Path(path))
    names = [str(decode(column)) for column in columns]
    return [
        {name: decode(row[column]) for name, column in zip(names, columns, strict=True) if column in row}
        for row in rows
    ]


class MetricsFile:
    """Rows in the order of their steps; all values of one step share a row.

    Each update is one write of one row: a kill costs at most the values of that update. The header grows by rewriting
    the file beside itself. Nothing is kept open, so that copies of this object in other processes are harmless.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        columns, rows = _read(self.path)
        self._columns = columns or list(_INDEX)
        self._write_whole(rows)

    @property
    def last_step(self) -> int | None:
        """The step of the last row, None where there is none."""
        return int(self._row["step"]) if self._row else None

    def update(self, step: int, values: Mapping[str, object]) -> None:
        """Write values into the row of ``step``, over earlier ones of the same names."""
        cells = {"step": str(int(step))} | {
            encode(name): encode(value) for name, value in values.items() if name != "step"
        }
        new = [column for column in cells if column not in self._columns]
        self._columns += new
        same_row = self.last_step == step
        if new or (not same_row and self.last_step is not None and step < self.last_step):
            self._write_whole(_merged(_read(self.path)[1], cells))
            return
        if not same_row:
            self._row, self._start = {}, self._end
        self._row |= cells
        self._write_last()

    def rewind(self, step: int) -> None:
        """Drop the rows of ``step`` and of every later one."""
        rows = _read(self.path)[1]
        kept = [row for row in rows if int(row["step"]) < step]
        if len(kept) < len(rows):
            self._write_whole(kept)

    def sync(self) -> None:
        """Wait until the rows are on the device, so that they outlive the machine and not only the process."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def _write_last(self) -> None:
        line = _line(self._columns, self._row)
        with errors_naming(self.path), self.path.open("r+b", buffering=0) as file:
            before = os.pread(file.fileno(), self._end - self._start, self._start)
            try:
                # One call over the shorter row that it replaces, so that the row is in the file at every moment.
                write_all(file.fileno(), line, self._start)
            except OSError:
                # The disk is full: the row that was there has its place.
                write_all(file.fileno(), before, self._start)
                file.truncate(self._end)
                raise
            self._end = self._start + len(line)
            file.truncate(self._end)

    def _write_whole(self, rows: list[dict[str, str]]) -> None:
        lines = [_line(self._columns, {column: column for column in self._columns})]
        lines += [_line(self._columns, row) for row in rows]
        with written_whole(self.path) as partial:
            partial.write_bytes(b"".join(lines))
        self._row = rows[-1] if rows else {}
        self._end = sum(map(len, lines))
        self._start = self._end - len(lines[-1])


def _merged(rows: list[dict[str, str]], cells: dict[str, str]) -> list[dict[str, str]]:
    step = int(cells["step"])
    before = [row for row in rows if int(row["step"]) < step]
    same = [row for row in rows if int(row["step"]) == step] or [{}]
    return [*before, same[0] | cells, *(row for row in rows if int(row["step"]) > step)]


def _line(columns: list[str], row: Mapping[str, str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([row.get(column, "") for column in columns])
    return line.getvalue().encode()


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows as cells; empty cells are left out."""
    if not path.exists():
        return [], []
    # Every row ends in a line break, and no cell holds one: the text after the last break is a row that a kill cut short.
    lines = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    table = list(csv.reader(lines))
    if not table:
        return [], []
    columns, body = table[0], table[1:]
    if columns[:2] != list(_INDEX) or len(set(columns)) != len(columns):
        raise ValueError(f"{path} is no metrics file: its first line must begin with step,epoch and repeat no name")
    is_row = [len(cells) == len(columns) and cells[0].isdecimal() and len(cells[0]) < 19 for cells in body]
    if is_row and not is_row[-1]:
        body, is_row = body[:-1], is_row[:-1]
    if not all(is_row):
        number = is_row.index(False) + 2
        raise ValueError(f"{path}, line {number}: expected {len(columns)} cells of which the first is the step")
    return columns, [{name: cell for name, cell in zip(columns, cells, strict=True) if cell} for cells in body]

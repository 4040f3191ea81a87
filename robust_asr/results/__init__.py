"""The record of an evaluation: one JSON line per (system, condition, part, utterance), and a description of every name in it.

A run folder holds ``evaluation.json`` (systems, conditions and parts with their descriptions and hashes) and ``results.jsonl``
(the rows). While several ranks work, each appends to ``results.rank-<r>.jsonl``; rank zero merges them. Both files are plain data:
reading them executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from robust_asr.results.fields import KEY, wrong_description, wrong_row
from robust_asr.results.recount import recount
from robust_asr.storage import strict_json
from robust_asr.storage.files import append_whole, clean_leftovers, written_whole

ROWS = "results.jsonl"
DESCRIPTION = "evaluation.json"
FORMAT = 2
_RANKS = "results.rank-*.jsonl"
# Two runs of one evaluation share every field of a row but the measured time.
_CLOCK = frozenset({"seconds"})

Row = dict[str, Any]
Key = tuple[str, str, str, str]
# System, condition and part: one cell of the table.
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Evaluation:
    """A run folder's rows, in the order of its systems, conditions and parts, and its description.

    Attributes:
        systems, conditions: name -> ``hash``, ``columns`` (those of the papers' tables) and ``description``.
        parts: name -> ``num_utterances``.
    """

    run_dir: Path
    systems: dict[str, dict[str, Any]]
    conditions: dict[str, dict[str, Any]]
    parts: dict[str, dict[str, Any]]
    rows: tuple[Row, ...]

    def select(self, system: str, condition: str, part: str) -> list[Row]:
        """The rows of one cell of the table, sorted by id."""
        return list(self._cells.get((system, condition, part), ()))

    @property
    def digest(self) -> str:
        """A hash of all rows without the measured time, and of the descriptions of systems and conditions."""
        return digest([self.systems, self.conditions, sorted((_content(row) for row in self.rows), key=key)])

    @cached_property
    def _cells(self) -> dict[Cell, list[Row]]:
        cells: dict[Cell, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: row["id"]):
            cells.setdefault(cell_of(row), []).append(row)
        return cells


def key(row: Mapping[str, Any]) -> Key:
    return tuple(row[name] for name in KEY)


def cell_of(row: Mapping[str, Any]) -> Cell:
    return row["system"], row["condition"], row["part"]


def digest(content: Any) -> str:
    """The hash of plain data: sixteen hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def audio_hash(waveform: Tensor, *texts: str) -> str:
    """The hash of one utterance's samples and of texts: sixteen hexadecimal digits. Shape: (T,), without padding."""
    hashed = hashlib.sha256(waveform.detach().float().cpu().contiguous().numpy().tobytes())
    for text in texts:
        hashed.update(text.encode(errors="backslashreplace"))
    return hashed.hexdigest()[:16]


def audio_path(run_dir: Path, *cell: str) -> Path:
    """Where an evaluation keeps the audio of a row; (system, condition, part, id), or (part, id) for the audio as it was.

    Mono FLAC of 24 bits, kept for the worst utterances of each cell only.
    """
    return run_dir / "audio" / f"{digest(list(cell))}.flac"


def read_evaluation(run_dir: str | Path) -> Evaluation:
    """The rows and the description of a run folder, also while an evaluation still writes to it.

    Rows whose counts do not fit their texts are counted anew, see ``recount``.

    Errors: ValueError names the file, the line and what is wrong with it.
    """
    run_dir = Path(run_dir)
    description = read_description(run_dir)
    if description is None:
        raise ValueError(f"{run_dir} holds no {DESCRIPTION}: `python train.py test` writes it and the rows beside it")
    rows = tuple(recount(_described(read_rows(run_dir).values(), description)))
    return Evaluation(run_dir, description["systems"], description["conditions"], description["parts"], rows)


def _described(rows: Iterable[Row], description: Mapping[str, Any]) -> list[Row]:
    """The rows whose system, condition and part the description has, in its order."""
    names = {name: {entry: place for place, entry in enumerate(description[f"{name}s"])} for name in KEY[:3]}
    known = [row for row in rows if all(row[name] in names[name] for name in KEY[:3])]
    return sorted(
        known, key=lambda row: (*(names[name][row[name]] for name in ("part", "condition", "system")), row["id"])
    )


def read_description(run_dir: Path) -> dict[str, Any] | None:
    """``evaluation.json`` of a run folder, None where there is none.

    Errors: ValueError names the file, and the field that ``write_description`` does not write so.
    """
    path = run_dir / DESCRIPTION
    if not path.exists():
        return None
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error
    written_in = content.get("format") if isinstance(content, dict) else None
    if written_in != FORMAT:
        raise ValueError(
            f"{path}: field 'format' must be {FORMAT}, found {str(written_in)[:40]!r}; make an evaluation of another format anew, "
            "in a folder of its own"
        )
    wrong = wrong_description(content)
    if wrong:
        raise ValueError(f"{path}: {wrong}")
    return content


def write_description(run_dir: Path, description: Mapping[str, Any]) -> None:
    """Write ``evaluation.json``, whole or not at all; entries of an earlier start of the evaluation stay in it.

    ``code`` becomes the list of the versions of this package that the evaluation was run with, the present one last.

    Errors: ValueError where an earlier start described a system or a condition of the same name otherwise.
    """
    earlier = read_description(run_dir)
    merged = {"format": FORMAT, **description, "code": [*_other_code(earlier), source_hash()]}
    for name in ("systems", "conditions", "parts") if earlier else ():
        for entry, content in earlier[name].items():
            present = description[name].get(entry)
            if present is not None and present.get("hash") != content.get("hash"):
                hashes = content.get("hash"), present.get("hash")
                raise ValueError(_refusal(run_dir / DESCRIPTION, name.removesuffix("s"), entry, *hashes))
        merged[name] = {**description[name], **{k: v for k, v in earlier[name].items() if k not in description[name]}}
    with written_whole(run_dir / DESCRIPTION) as path:
        path.write_text(json.dumps(merged, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def other_code(run_dir: Path) -> list[str]:
    """The versions of this package, by ``source_hash``, that earlier starts of an evaluation ran and this one does not."""
    return _other_code(read_description(run_dir))


def _other_code(description: Mapping[str, Any] | None) -> list[str]:
    versions = (description or {}).get("code", [])
    return [code for code in versions if code != source_hash()] if isinstance(versions, list) else []


@cache
def source_hash() -> str:
    """The hash of this package's source: with other source the same settings may give other rows."""
    package = Path(__file__).parents[1]
    files = sorted(path.relative_to(package) for path in package.rglob("*.py"))
    return digest([[path.as_posix(), hashlib.sha256((package / path).read_bytes()).hexdigest()] for path in files])


def read_rows(run_dir: Path) -> dict[Key, Row]:
    """All rows of a run folder by key. A last line that a kill cut short is left out.

    Errors: ValueError names the file and line that is no row, or two rows of one key that disagree.
    """
    rows: dict[Key, Row] = {}
    # The common file comes last: a merge that another process makes meanwhile moves rows from the ranks' files into it.
    for path in [*sorted(run_dir.glob(_RANKS)), run_dir / ROWS]:
        for number, row in _rows_of(path):
            known = rows.setdefault(key(row), row)
            if known is not row and _content(known) != _content(row):
                raise ValueError(
                    f"{path}, line {number}: utterance {row['id']} of {row['system']} under {row['condition']} is there twice"
                )
    return rows


class RowWriter:
    """Appends the rows of one rank; a kill costs at most the rows of one call, and a full disk leaves none of them half."""

    def __init__(self, run_dir: Path, *, rank: int = 0, world_size: int = 1) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / (ROWS if world_size == 1 else f"results.rank-{rank}.jsonl")
        _cut_short_line(self.path)

    def append(self, rows: Iterable[Row]) -> None:
        append_whole(self.path, b"".join(map(_line, rows)))


def merge(run_dir: Path) -> None:
    """All rows into ``results.jsonl``, in the order of ``read_evaluation``; the ranks' files are deleted after that.

    So are the half-written files that killed processes left in the folder.
    """
    clean_leftovers(run_dir)
    everything, description = read_rows(run_dir), read_description(run_dir)
    # As the files have them: a row is counted anew where it is read, so that what was changed stays visible.
    rows = _described(everything.values(), description) if description else []
    kept = {key(row) for row in rows}
    others = [row for place, row in everything.items() if place not in kept]
    with written_whole(run_dir / ROWS) as path:
        path.write_bytes(b"".join(map(_line, [*rows, *others])))
    for path in run_dir.glob(_RANKS):
        path.unlink()


def check_row(row: Row, hashes: Mapping[str, str], path: Path) -> None:
    """ValueError unless a row was made by the same system under the same condition from the same data."""
    for name, present in hashes.items():
        if row["hashes"].get(name) != present:
            entry = row["id"] if name == "data" else row[name]
            raise ValueError(_refusal(path, name, entry, row["hashes"].get(name), present))


def _line(row: Row) -> bytes:
    # Half of a surrogate pair has no UTF-8 form, and its backslash form is what JSON writes for it.
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")


def _refusal(path: Path, kind: str, name: str, recorded: Any, present: Any) -> str:
    return (
        f"{path}: holds results of another {kind} {name!r} (hash {recorded}, now {present}); "
        "name another --run_dir, or delete what is in this one"
    )


def _content(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _CLOCK}


def _rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    # Every line ends in a line break: the text after the last one is a line that a kill cut short.
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = strict_json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: is not JSON ({error})") from error
        wrong = wrong_row(row)
        if wrong:
            raise ValueError(f"{path}, line {number}: is not a row of an evaluation: {wrong}")
        yield number, row


def _cut_short_line(path: Path) -> None:
    """Drop a last line that a kill cut short."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)

"""VoxPopuli's layout: a language's folder with ``asr_train.tsv``, ``asr_dev.tsv`` and ``asr_test.tsv``, and audio by year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.preparing.files import AUDIO_SUFFIXES
from datamodules.preparing.parts import Part
from datamodules.preparing.tables import Columns, Table, add_row, good_rows, tables_of

PARTS = ("train", "dev", "test")
_COLUMNS = Columns(path="id", text="normalized_text", id="id", speaker="speaker_id")
_PREFIX = "asr_"
# What stands where the speaker is not known.
_NOBODY = "None"


def read_parts(corpus: Path, names: Sequence[str] | None) -> list[Part]:
    """The parts that are asked for, or those of train, dev and test that are there, with their normalised texts.

    The audio of an id lies in the folder of the year that the id begins with.

    Errors: ValueError names the folder or table, and what it lacks.
    """
    there = {path.stem.removeprefix(_PREFIX): path for path in sorted(corpus.glob(f"{_PREFIX}*.tsv"))}
    tables = tables_of(corpus, there, names, PARTS, f"**/{_PREFIX}train.tsv")
    return [_read_part(corpus, name, path) for name, path in tables.items()]


def _read_part(corpus: Path, name: str, path: Path) -> Part:
    table = Table(path, _COLUMNS.named(), delimiters="\t")
    part = Part(corpus, name)
    for row in good_rows(part, table):
        speaker = "" if row.fields["speaker_id"] == _NOBODY else row.fields["speaker_id"]
        row = replace(row, fields={**row.fields, "speaker_id": speaker})
        add_row(part, row, path, _COLUMNS, folder=corpus / row.fields["id"][:4])
    for utterance, audio in part.audio.items():
        part.audio[utterance] = _with_ending(audio)
    return part


def _with_ending(audio: Path) -> Path:
    """The file of an id in any format that is read; where there is none, the name that VoxPopuli gives it."""
    original = audio.parent / f"{audio.name}.ogg"
    others = (audio.parent / f"{audio.name}{suffix}" for suffix in AUDIO_SUFFIXES)
    return original if original.exists() else next((path for path in others if path.exists()), original)

"""The audio of the utterances that went worst, kept beside the rows for the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import soundfile
from torch import Tensor

from robust_asr.results import Row, audio_path
from robust_asr.storage.files import written_whole
from robust_asr.types import AudioBatch

Cell = tuple[str, str, str]


class WorstAudio:
    """Keeps the audio of the ``keep`` worst rows of each (system, condition, part).

    While an evaluation runs, whatever is among the worst so far is written, before its row is; ``prune`` then leaves the worst
    of all. So neither a kill nor the number of ranks changes what stays.
    """

    def __init__(self, run_dir: Path, rows: Iterable[Row], *, keep: int, sample_rate: int) -> None:
        self.run_dir, self.keep, self.sample_rate = run_dir, keep, sample_rate
        self._worst: dict[Cell, list[Row]] = {}
        self._add(rows)

    def keep_worst(self, rows: Sequence[Row], indices: Sequence[int], clean: AudioBatch, attacked: AudioBatch) -> None:
        """``rows[i]`` belongs to utterance ``indices[i]`` of the batches."""
        self._add(rows)
        for row, index in zip(rows, indices, strict=True):
            if any(row is kept for kept in self._worst.get(_cell(row), ())):
                length = int(clean.lengths[index])
                self._write(clean.waveforms[index, :length], row["part"], row["id"])
                self._write(attacked.waveforms[index, :length], *_cell(row), row["id"])

    def prune(self, rows: Iterable[Row]) -> None:
        """Delete the audio of all but the worst of these rows."""
        self._worst = {}
        self._add(rows)
        wanted = set()
        for row in (row for worst in self._worst.values() for row in worst):
            wanted |= {self._path(*_cell(row), row["id"]), self._path(row["part"], row["id"])}
        for path in (self.run_dir / "audio").glob("*.flac"):
            if path not in wanted:
                path.unlink()

    def _add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            worst = self._worst.setdefault(_cell(row), [])
            worst.append(row)
            worst.sort(key=_badness)
            del worst[self.keep :]

    def _path(self, *cell: str) -> Path:
        return audio_path(self.run_dir, *cell)

    def _write(self, waveform: Tensor, *cell: str) -> None:
        with written_whole(self._path(*cell)) as partial:
            samples = waveform.detach().float().cpu().nan_to_num().clamp(-1, 1).numpy()
            soundfile.write(partial, samples, self.sample_rate, format="FLAC", subtype="PCM_24")


def _cell(row: Row) -> Cell:
    return row["system"], row["condition"], row["part"]


def _badness(row: Row) -> tuple[float, int, str]:
    edits = row["insertions"] + row["deletions"] + row["substitutions"]
    return -edits / max(row["words"], 1), -edits, row["id"]

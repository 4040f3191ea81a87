"""Audio beside the rows: how it is written, and which utterances keep theirs for the report."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from robust_asr.results import Cell, Row, audio_path, cell_of
from robust_asr.results.worst import worst_first
from robust_asr.storage.files import clean_leftovers, written_whole
from robust_asr.types import AudioBatch

_STEPS = 2**23


def quantized(attacked: Tensor, clean: Tensor) -> Tensor:
    """Attacked audio on the grid of 24 bits, rounded towards the clean audio, so that no bound on a sample is left by storing.

    The stored sample lies between the attacked and the clean one, and is no farther from the stored clean sample, which is the
    nearest on the grid, than the attacked sample is from the clean one. Only where no number of the grid lies between the
    two, closer than a step, is it the stored clean sample.

    Shape: both alike. Units: full-scale amplitude; the grid ends one step below 1.
    """
    exact, origin = attacked.double() * _STEPS, clean.double() * _STEPS
    stored_clean, room = origin.round(), (exact - origin).abs().floor()
    inwards = torch.where(exact > origin, exact.floor(), exact.ceil())
    inwards = torch.maximum(torch.minimum(inwards, stored_clean + room), stored_clean - room)
    # Adding 0.0 turns negative zeros into zeros: a file does not keep the sign of a zero, but the hash in a row depends on it.
    return ((inwards + 0.0).clamp(-_STEPS, _STEPS - 1) / _STEPS).to(attacked.dtype)


def write_flac(path: Path, waveform: Tensor, sample_rate: int) -> None:
    """Mono FLAC of 24 bits, whole or not at all: 16 bits would round a small perturbation away.

    Samples that are multiples of 2^-23 in [-1, 1) read back exactly.

    Shape: (T,), finite.
    """
    # In memory first: the encoder does not say that the disk is full.
    content = io.BytesIO()
    soundfile.write(content, waveform.detach().float().cpu().numpy(), sample_rate, format="FLAC", subtype="PCM_24")
    with written_whole(path) as partial:
        partial.write_bytes(content.getvalue())


class WorstAudio:
    """Keeps the audio of the ``keep`` worst rows of each (system, condition, part).

    While an evaluation runs, the audio of the worst rows so far is written, each before its row; ``prune`` then leaves that of
    the worst of all. So neither a kill nor the number of ranks changes which files stay.
    """

    def __init__(self, run_dir: Path, rows: Iterable[Row], *, keep: int, sample_rate: int) -> None:
        self.run_dir, self.keep, self.sample_rate = run_dir, keep, sample_rate
        self._worst: dict[Cell, list[Row]] = {}
        self._add(rows)

    def keep_worst(self, rows: Sequence[Row], indices: Sequence[int], clean: AudioBatch, attacked: AudioBatch) -> None:
        """``rows[i]`` belongs to utterance ``indices[i]`` of the batches."""
        self._add(rows)
        for row, index in zip(rows, indices, strict=True):
            if any(row is kept for kept in self._worst.get(cell_of(row), ())):
                length = int(clean.lengths[index])
                before, after = (
                    batch.waveforms[index, :length].nan_to_num().clamp(-1, 1) for batch in (clean, attacked)
                )
                self._write(quantized(before, before), row["part"], row["id"])
                self._write(quantized(after, before), *cell_of(row), row["id"])

    def prune(self, rows: Iterable[Row]) -> None:
        """Delete the audio of all but the worst of these rows, and files that killed processes left half-written."""
        clean_leftovers(self.run_dir / "audio")
        self._worst = {}
        self._add(rows)
        wanted = set()
        for row in (row for worst in self._worst.values() for row in worst):
            wanted |= {self._path(*cell_of(row), row["id"]), self._path(row["part"], row["id"])}
        for path in (self.run_dir / "audio").glob("*.flac"):
            if path not in wanted:
                path.unlink()

    def _add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            worst = self._worst.setdefault(cell_of(row), [])
            worst.append(row)
            worst.sort(key=worst_first)
            del worst[self.keep :]

    def _path(self, *cell: str) -> Path:
        return audio_path(self.run_dir, *cell)

    def _write(self, waveform: Tensor, *cell: str) -> None:
        write_flac(self._path(*cell), waveform, self.sample_rate)

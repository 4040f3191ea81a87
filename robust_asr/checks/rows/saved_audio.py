"""Does the audio on disk hold the perturbation that the rows were measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from robust_asr.checks.rows.conditions import Condition, cells, conditions_of, of_part
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.metrics import snr_db
from robust_asr.results import Evaluation, Row, audio_hash, audio_path
from robust_asr.storage.audio import as_float, measured

SAVED = Question(
    "saved audio holds the perturbation that was measured",
    "The file that is played or trained on is not the audio that the row was measured on; 16 bits change a small perturbation.",
)
# Files of a cell that are read, in the order of their ids: an evaluation keeps a few, an adversarial set all.
_FILES = 32
_DEEP = frozenset({"PCM_24", "PCM_32", "FLOAT", "DOUBLE"})
# A step of 24 bits: the rounding of a sample in each of the two files.
_STEP = 2.0**-23


def check_saved_audio(evaluation: Evaluation) -> Iterator[Check]:
    if not (evaluation.run_dir / "audio").is_dir():
        return
    conditions = {condition.name: condition for condition in conditions_of(evaluation)}
    for system, name, part, rows in cells(evaluation):
        saved = ((row, _path(evaluation.run_dir, row)) for row in rows)
        files = list(islice(((row, path) for row, path in saved if path.is_file()), _FILES))
        if files:
            wrong = {row["id"]: why for row, path in files if (why := _wrong(row, path, evaluation, conditions[name]))}
            text = f"{len(wrong)} of {len(files)} files differ from their rows{of_part(evaluation, part)}"
            text += f": {some([f'{utterance} {why}' for utterance, why in wrong.items()])}" if wrong else ""
            yield SAVED.verdict(not wrong, text, system=system, condition=name, value=len(wrong))


def _path(run_dir: Path, row: Row) -> Path:
    return audio_path(run_dir, row["system"], row["condition"], row["part"], row["id"])


def _wrong(row: Row, path: Path, evaluation: Evaluation, condition: Condition) -> str:
    """The defect of a file, "" where it has none."""
    try:
        depth, attacked = _read(path)
        if depth not in _DEEP:
            return f"is {depth}"
        clean_path = audio_path(evaluation.run_dir, row["part"], row["id"])
        clean = _read(clean_path)[1] if clean_path.is_file() else None
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    if isinstance(row.get("audio"), str) and audio_hash(attacked.float()) != row["audio"]:
        return "is other audio"
    if clean is None:
        return ""
    if clean.shape != attacked.shape:
        return f"has {len(attacked)} samples instead of {len(clean)}"
    return _wrong_size(row, attacked - clean, clean, condition)


def _wrong_size(row: Row, delta: Tensor, clean: Tensor, condition: Condition) -> str:
    measured, level = snr_db(clean, clean + delta), float(delta.square().mean().sqrt())
    if row.get("snr_db") is not None:
        # An error of one step in every sample moves the level by at most this much; 1e-4 dB is the last digit of a row.
        room = 20 * math.log10(1 + 2 * _STEP / level) + 1e-4 if level > 0 else 0.0
        if not abs(measured - row["snr_db"]) <= room:
            return f"has an SNR of {measured:.4g} dB instead of {row['snr_db']:.4g}"
    is_maximum = condition.norm == "Linf" and condition.columns.get("knowledge") != "transfer"
    if is_maximum and row.get("size") is not None:
        peak = float(delta.abs().max()) if len(delta) else 0.0
        if abs(peak - row["size"]) > 2 * _STEP + 1e-8:
            return f"has a largest perturbation of {peak:.8g} instead of {row['size']:.8g}"
    return ""


def _read(path: Path) -> tuple[str, Tensor]:
    """How the file holds its samples, and the samples. Shape: (T,) float64."""
    header, samples = measured(path)
    return header.subtype, torch.from_numpy(as_float(samples)).double()

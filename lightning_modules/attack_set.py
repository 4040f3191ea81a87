"""Adversarial sets on disk: ``train.py predict``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import soundfile
import torch
from lhotse import Recording
from lhotse.audio import AudioSource
from lhotse.cut import MonoCut
from lhotse.supervision import SupervisionSegment
from torch import Tensor

from datamodules.manifest import SUFFIX, write_corpus_root, write_manifest
from lightning_modules.evaluation import Evaluation
from robust_asr.attacks.base import Attack, Generated
from robust_asr.attacks.verdict import AttackResult
from robust_asr.masking import masked
from robust_asr.measuring.audio import write_flac
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, utterance_seeds
from robust_asr.results import Evaluation as Record
from robust_asr.results import Row, audio_hash, audio_path
from robust_asr.types import AudioBatch

_STEPS = 2**23
# Draws of the verdict on the saved audio: the attack has not seen them, nor has its own verdict.
_SAVED = 2**42


class AttackSet(Evaluation):
    """Attacks every utterance of the parts to predict, and writes what comes out: audio, rows and a manifest.

    The folder is one of an evaluation with one system and one condition, so the report reads it; it goes on where it stopped, and
    any number of ranks makes the same set. Audio is FLAC of 24 bits: 16 would move the samples of a small perturbation by a
    third of its bound. Each file is read back, and what the rows say - SNR, what was heard, success - was measured on it.

    ``robust_asr.attacks.saved.Saved`` plays the set to any system; ``<part>.jsonl.gz`` is a manifest of it for training.

    Args:
        recognizer: what is attacked.
        attack: a value of ``robust_asr.attacks``.
        seed: keys every random draw; linked to ``seed_everything`` on the command line.
    """

    def __init__(self, recognizer: Recognizer, attack: Attack, *, seed: int = 0) -> None:
        super().__init__({"attacked": recognizer}, {attack.name: attack}, seed=seed, keep_audio=0)

    def predict_step(self, batch: AudioBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.test_step(batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self) -> None:
        self._finish()

    def judged(
        self,
        recognizer: Recognizer,
        attack: Attack,
        batch: AudioBatch,
        generated: Generated,
        cell: tuple[str, str, str],
    ) -> AttackResult:
        saved = replace(generated, batch=generated.batch.replace(self._save(generated.batch, batch, cell)))
        seeds = utterance_seeds(self.seed, batch.ids)
        return attack.verdict(recognizer, batch, saved, seeds=seeds, draws=Key.VERDICT_ON_SAVED_AUDIO)

    def keep_audio_of(self, rows: list[Row], indices: list[int], clean: AudioBatch, result: AttackResult) -> None:
        for row, index in zip(rows, indices, strict=True):
            row["audio"] = audio_hash(result.batch.waveforms[index, : int(clean.lengths[index])])

    def complete(self, evaluation: Record) -> None:
        write_corpus_root(self.run_dir, self.run_dir / "audio")
        (system,), (condition,) = evaluation.systems, evaluation.conditions
        for part in evaluation.parts:
            rows = evaluation.select(system, condition, part)
            write_manifest(self.run_dir / f"{part}{SUFFIX}", [self._cut(row) for row in rows])

    def _cut(self, row: Row) -> MonoCut:
        path = self._path((row["system"], row["condition"], row["part"]), row["id"])
        num_samples = round(row["audio_seconds"] * self.sample_rate)
        seconds = num_samples / self.sample_rate
        recording = Recording(row["id"], [AudioSource("file", [0], path.name)], self.sample_rate, num_samples, seconds)
        text = SupervisionSegment(row["id"], row["id"], 0, seconds, text=row["reference"])
        return MonoCut(row["id"], 0, seconds, 0, [text], recording=recording)

    def _save(self, attacked: AudioBatch, batch: AudioBatch, cell: tuple[str, str, str]) -> Tensor:
        """Write every utterance and return what the files hold. Shape: (B, T)."""
        saved = quantized(attacked.waveforms, batch)
        for index, (utterance, length) in enumerate(zip(batch.ids, batch.lengths.tolist(), strict=True)):
            if not bool(saved[index].isfinite().all()):
                raise ValueError(f"utterance {utterance}: its audio is not finite, so it cannot be part of a set")
            path = self._path(cell, utterance)
            write_flac(path, saved[index, :length], self.sample_rate)
            read_back = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
            if not torch.equal(read_back, saved[index, :length].cpu()):
                raise OSError(f"{path}: reads back otherwise than it was written")
        return saved

    def _path(self, cell: tuple[str, str, str], utterance: str) -> Path:
        return audio_path(self.run_dir, *cell, utterance)


def quantized(attacked: Tensor, batch: AudioBatch) -> Tensor:
    """To steps of 24 bits, towards the clean audio: a perturbation within a ball stays within it. Shape: (B, T) -> (B, T)."""
    scaled = attacked.double() * _STEPS
    inwards = torch.where(attacked > batch.waveforms, scaled.floor(), scaled.ceil())
    inwards = torch.where(attacked == batch.waveforms, scaled.round(), inwards)
    # A file knows no negative zero, and the hash of a row does.
    inwards = inwards + 0.0
    return masked((inwards.clamp(-_STEPS, _STEPS - 1) / _STEPS).to(attacked.dtype), batch.lengths)

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
from robust_asr.measuring.audio import quantized, write_flac
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, utterance_seeds
from robust_asr.results import Cell, Row, audio_hash, audio_path
from robust_asr.results import Evaluation as Record
from robust_asr.types import AudioBatch


class AttackSet(Evaluation):
    """Attacks every utterance of the ``predict`` data parts and writes an adversarial set: audio, rows and a manifest.

    The folder has the form of an evaluation with one system and one condition, so the report can read it. An interrupted run
    continues where it stopped, and any number of ranks makes the same set. Audio is FLAC with 24 bits, because 16 bits would
    move the samples of a small perturbation by a third of its bound. Each file is read back after writing, and the values in
    the rows (SNR, transcript, success) are measured on the saved audio.

    ``robust_asr.attacks.saved.Saved`` applies the set to any system; ``<part>.jsonl.gz`` is a manifest of the set for training.

    Args:
        recognizer: the recogniser to attack.
        attack: an attack of ``robust_asr.attacks``.
        seed: keys every random draw; linked to ``seed_everything`` on the command line.
    """

    def __init__(self, recognizer: Recognizer, attack: Attack, *, seed: int = 0) -> None:
        super().__init__({"attacked": recognizer}, {attack.name: attack}, seed=seed, keep_audio=0)

    def predict_step(self, batch: AudioBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.test_step(batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self) -> None:
        self._finish()

    def judged(
        self, recognizer: Recognizer, attack: Attack, batch: AudioBatch, generated: Generated, cell: Cell
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

    def _save(self, attacked: AudioBatch, batch: AudioBatch, cell: Cell) -> Tensor:
        """Write the audio of every utterance and return the waveforms as the files hold them. Shape: (B, T)."""
        saved = quantized(attacked.waveforms, batch.waveforms)
        host = saved.cpu()
        for index, (utterance, length) in enumerate(zip(batch.ids, batch.lengths.tolist(), strict=True)):
            if not bool(host[index].isfinite().all()):
                raise ValueError(f"utterance {utterance}: its audio is not finite, so it cannot be part of a set")
            path = self._path(cell, utterance)
            write_flac(path, host[index, :length], self.sample_rate)
            read_back = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
            if not torch.equal(read_back, host[index, :length]):
                raise OSError(f"{path}: reading the file back gives other samples than were written")
        return saved

    def _path(self, cell: Cell, utterance: str) -> Path:
        return audio_path(self.run_dir, *cell, utterance)

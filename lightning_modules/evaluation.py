"""Evaluation: systems x conditions over data parts, as rows on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from lightning_modules.loggers.wandb_logger import RunWandbLogger
from lightning_modules.loggers.wandb_report import log_report
from robust_asr.attacks.base import Attack, AttackResult
from robust_asr.attacks.noise import Clean
from robust_asr.checks.live.evaluation import LiveChecks, conclude
from robust_asr.measuring.audio import WorstAudio
from robust_asr.measuring.rows import data_hash, rows_of_cell
from robust_asr.measuring.systems import describe_condition, describe_system
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.results import Evaluation as Record
from robust_asr.results import (
    Row,
    RowWriter,
    check_row,
    merge,
    other_code,
    read_evaluation,
    read_rows,
    write_description,
)
from robust_asr.results.summary import headline, write_summary
from robust_asr.types import AudioBatch


class Evaluation(pl.LightningModule):
    """What every system hears under every condition, one row an utterance, in ``<run_dir>/results.jsonl``.

    Killed at any moment and started again, it goes on where it stopped: a batch whose rows are there is skipped, if they were
    made by the same weights and settings from the same audio; else it is refused. One and many ranks write the same rows.
    The draws of an utterance are keyed by (seed, id): all systems meet the same noise, so their differences are paired.

    Args:
        systems: what is compared; the first is the baseline of the differences.
        conditions: attacks and noise, ``robust_asr.attacks``; clean audio if none is given.
        seed: keys every random draw; linked to ``seed_everything`` on the command line.
        keep_audio: worst utterances of each cell whose audio is kept for the report.

    Errors: ValueError for systems of different sample rates, and for rows of another system, condition or recording.
    """

    def __init__(
        self,
        systems: dict[str, Recognizer],
        conditions: dict[str, Attack] | None = None,
        *,
        seed: int = 0,
        keep_audio: int = 3,
    ) -> None:
        super().__init__()
        if not systems:
            raise ValueError("systems: names nothing to evaluate")
        rates = {name: recognizer.sample_rate for name, recognizer in systems.items()}
        if len(set(rates.values())) > 1:
            raise ValueError(f"systems must share one sample rate, found {rates}")
        if keep_audio < 0:
            raise ValueError(f"keep_audio must be 0 or more, found {keep_audio}")
        # A ModuleDict would refuse names such as "sigma .01".
        self.names = list(systems)
        self.recognizers = torch.nn.ModuleList(systems.values())
        self.conditions = conditions or {"none": Clean()}
        self.seed = seed
        self.keep_audio = keep_audio
        self.sample_rate = next(iter(rates.values()))
        self.folder: Path | None = None

    @property
    def systems(self) -> Iterator[tuple[str, Recognizer]]:
        return zip(self.names, self.recognizers, strict=True)

    @property
    def run_dir(self) -> Path:
        """Where the rows are: the trainer's folder, unless ``folder`` names another."""
        return self.folder or Path(self.trainer.default_root_dir)

    def on_test_start(self) -> None:
        self._begin("test")

    def on_predict_start(self) -> None:
        self._begin("predict")

    def _begin(self, stage: str) -> None:
        self.eval()
        self._hashes = {"system": {}, "condition": {}}
        description = self._description(stage)
        for kind in self._hashes:
            self._hashes[kind] = {name: entry["hash"] for name, entry in description[f"{kind}s"].items()}
        if self.trainer.is_global_zero:
            write_description(self.run_dir, description)
            merge(self.run_dir)
            if other_code(self.run_dir) and read_rows(self.run_dir):
                rank_zero_warn(
                    f"{self.run_dir}: some of its rows were made by another version of robust_asr, which may have attacked "
                    "otherwise; to make all of them anew, delete the folder or name another --run_dir"
                )
        self.trainer.strategy.barrier()
        self._rows = read_rows(self.run_dir)
        for row in self._rows.values():
            known = {kind: hashes[row[kind]] for kind, hashes in self._hashes.items() if row[kind] in hashes}
            check_row(row, known, self.run_dir / "results.jsonl")
        self._writer = RowWriter(self.run_dir, rank=self.global_rank, world_size=self.trainer.world_size)
        self._audio = WorstAudio(self.run_dir, self._rows.values(), keep=self.keep_audio, sample_rate=self.sample_rate)
        self._checks = LiveChecks(self.run_dir, self._hashes, seed=self.seed)

    def test_step(self, batch: AudioBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        part = self._parts[dataloader_idx]
        if self.trainer.is_global_zero and batch_idx == dataloader_idx == 0 and len(batch):
            self._say("checks")
            self._checks.check(self.systems, self.conditions, batch)
        data = [data_hash(batch, row) for row in range(len(batch))]
        for condition, attack in self.conditions.items() if len(batch) else ():
            for system, recognizer in self.systems:
                missing = self._missing(batch, data, (system, condition, part))
                if missing:
                    self._say(f"{condition}, {system}")
                    self._evaluate(recognizer, attack, batch, missing, (system, condition, part))

    def on_test_epoch_end(self) -> None:
        self._finish()

    def _finish(self) -> None:
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            merge(self.run_dir)
            evaluation = read_evaluation(self.run_dir)
            self.complete(evaluation)
            write_summary(evaluation)
            failures = conclude(evaluation)
            for logger in self.trainer.loggers:
                if isinstance(logger, RunWandbLogger):
                    log_report(logger.experiment, evaluation)
            print(headline(evaluation), f"rows and summary.csv are in {self.run_dir}", sep="\n")
            if failures:
                print(failures)
        self.trainer.strategy.barrier()

    def complete(self, evaluation: Record) -> None:
        """What is left to do on rank zero when every row is there."""
        self._audio.prune(evaluation.rows)

    def _description(self, stage: str) -> dict[str, Any]:
        data = self.trainer.datamodule
        self._parts = data.dataloader_names(stage)
        systems = {name: describe_system(recognizer) for name, recognizer in self.systems}
        conditions = {name: describe_condition(attack, seed=self.seed) for name, attack in self.conditions.items()}
        sizes = zip(self._parts, data.num_utterances(stage), strict=True)
        parts = {name: {"num_utterances": size} for name, size in sizes}
        return {"seed": self.seed, "systems": systems, "conditions": conditions, "parts": parts}

    def _missing(self, batch: AudioBatch, data: list[str], cell: tuple[str, str, str]) -> list[int]:
        missing = []
        for index, utterance in enumerate(batch.ids):
            row = self._rows.get((*cell, utterance))
            if row is None:
                missing.append(index)
            else:
                check_row(row, {"data": data[index]}, self.run_dir / "results.jsonl")
        return missing

    def _evaluate(
        self,
        recognizer: Recognizer,
        attack: Attack,
        batch: AudioBatch,
        missing: list[int],
        cell: tuple[str, str, str],
    ) -> None:
        # The whole batch, also where a kill left some of its rows: what an utterance gets cannot depend on a kill.
        start = time.perf_counter()
        result = self.attacked(recognizer, attack, batch, cell)
        rows = rows_of_cell(
            result,
            batch,
            missing,
            cell,
            {"system": self._hashes["system"][cell[0]], "condition": self._hashes["condition"][cell[1]]},
            seconds=time.perf_counter() - start,
            sample_rate=self.sample_rate,
        )
        self.keep_audio_of(rows, missing, batch, result)
        self._writer.append(rows)
        self._rows.update({(*cell, row["id"]): row for row in rows})

    def attacked(
        self, recognizer: Recognizer, attack: Attack, batch: AudioBatch, cell: tuple[str, str, str]
    ) -> AttackResult:
        """What the rows of a batch are measured on."""
        return attack(recognizer, batch, seeds=utterance_seeds(self.seed, batch.ids))

    def keep_audio_of(self, rows: list[Row], indices: list[int], clean: AudioBatch, result: AttackResult) -> None:
        """Audio is on disk before its row is."""
        self._audio.keep_worst(rows, indices, clean, result.batch)

    def _say(self, what: str) -> None:
        bar = self.trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar) and self.trainer.is_global_zero:
            shown = bar.predict_progress_bar if self.trainer.predicting else bar.test_progress_bar
            shown.set_postfix_str(what)

"""Evaluation: systems x conditions over data parts, as rows on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from lightning_modules.callbacks.progress import RunProgress
from lightning_modules.loggers.wandb_logger import RunWandbLogger
from lightning_modules.loggers.wandb_report import log_report
from robust_asr.attacks.base import Attack, Generated
from robust_asr.attacks.noise import Clean
from robust_asr.attacks.verdict import AttackResult
from robust_asr.checks.live.evaluation import LiveChecks, conclude
from robust_asr.measuring.audio import WorstAudio
from robust_asr.measuring.rows import data_hash, rows_of_cell
from robust_asr.measuring.systems import describe_condition, describe_system, gradient_sources
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.results import (
    Cell,
    Row,
    RowWriter,
    check_row,
    digest,
    merge,
    other_code,
    read_evaluation,
    read_rows,
    write_description,
)
from robust_asr.results import Evaluation as Record
from robust_asr.results.summary import headline, write_summary
from robust_asr.storage.partial import PartialState
from robust_asr.text.terminal import say
from robust_asr.types import AudioBatch


class SharedAttacks:
    """The attacked audio of one batch under one condition, by gradient source. Audio of the source None is not shared."""

    def __init__(self) -> None:
        self._generated: dict[str, Generated] = {}
        self._partials: list[PartialState] = []

    def get(self, source: str | None) -> Generated | None:
        return None if source is None else self._generated.get(source)

    def keep(self, source: str | None, generated: Generated, partial: PartialState) -> None:
        self._partials.append(partial)
        if source is not None:
            self._generated[source] = generated

    def forget(self) -> None:
        """Delete the saved states: the rows of every system that shares an attack are on disk, so no kill can need them."""
        for partial in self._partials:
            partial.forget()


class Evaluation(pl.LightningModule):
    """Evaluates every system under every condition and writes one row for each utterance to ``<run_dir>/results.jsonl``.

    An evaluation that was killed continues where it stopped when it is started again. A batch is skipped if its rows exist and
    were made with the same weights, settings and audio; rows made with others are refused. The rows do not depend on the number
    of ranks. The random draws of an utterance are keyed by (seed, id), so all systems get the same noise and can be compared
    utterance by utterance.

    Systems with the same attacker's view (several votes over one recogniser, or any defences that the attacker is unaware of) are
    attacked once and judged separately. The rows of the first system count the passes of the attack; the rows of the others name
    that system in ``paid_by``.

    An attack that takes minutes saves its state in ``<run_dir>/partial`` while it runs, so a kill loses at most
    ``keep_every_seconds`` and one step.

    Args:
        systems: the systems to compare; differences are computed from the first.
        conditions: attacks and noise, ``robust_asr.attacks``; clean audio if none is given.
        seed: keys every random draw; linked to ``seed_everything`` on the command line.
        keep_audio: the number of worst utterances of each cell whose audio is saved for the report.
        keep_every_seconds: the time between two saves of a running attack's state.

    Errors: ValueError for systems of different sample rates, for a condition that cannot be applied to a system, and for rows of
        another system, condition or recording.
    """

    def __init__(
        self,
        systems: dict[str, Recognizer],
        conditions: dict[str, Attack] | None = None,
        *,
        seed: int = 0,
        keep_audio: int = 3,
        keep_every_seconds: float = 60.0,
    ) -> None:
        super().__init__()
        if not systems:
            raise ValueError("systems: names nothing to evaluate")
        rates = {name: recognizer.sample_rate for name, recognizer in systems.items()}
        if len(set(rates.values())) > 1:
            raise ValueError(f"systems must share one sample rate, found {rates}")
        if keep_audio < 0:
            raise ValueError(f"keep_audio must be 0 or more, found {keep_audio}")
        if not 0 <= keep_every_seconds < float("inf"):
            raise ValueError(f"keep_every_seconds must be finite and 0 or more, found {keep_every_seconds}")
        # A ModuleList beside the list of names, because a ModuleDict does not accept names such as "sigma .01".
        self.names = list(systems)
        self.recognizers = torch.nn.ModuleList(systems.values())
        self.conditions = conditions or {"none": Clean()}
        self.seed = seed
        self.keep_audio = keep_audio
        self.keep_every_seconds = keep_every_seconds
        self.sample_rate = next(iter(rates.values()))
        self.folder: Path | None = None

    @property
    def systems(self) -> Iterator[tuple[str, Recognizer]]:
        return zip(self.names, self.recognizers, strict=True)

    @property
    def run_dir(self) -> Path:
        """The folder of the rows: ``folder``, or the trainer's folder if that is None."""
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
        # Computed for all pairs before the first batch, so that a view that does not exist is reported at once, not after hours.
        self._sources = gradient_sources(self.systems, self.conditions)
        if self.trainer.is_global_zero:
            write_description(self.run_dir, description)
            merge(self.run_dir)
            if other_code(self.run_dir) and read_rows(self.run_dir):
                rank_zero_warn(
                    f"{self.run_dir}: some of its rows were made by another version of robust_asr, whose attacks may differ; "
                    "to evaluate everything with this version, delete the folder or name another --run_dir"
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
        for condition in self.conditions if len(batch) else ():
            shared = SharedAttacks()
            for system, recognizer in self.systems:
                cell = (system, condition, part)
                missing = self._missing(batch, data, cell)
                if missing:
                    self._say(f"{condition}, {system}", share=1 / (len(self.conditions) * len(self.names)))
                    self._evaluate(recognizer, batch, missing, cell, data, shared)
            shared.forget()

    def on_test_epoch_end(self) -> None:
        self._finish()

    def _finish(self) -> None:
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            merge(self.run_dir)
            evaluation = read_evaluation(self.run_dir)
            self.complete(evaluation)
            summary = write_summary(evaluation)
            failures = conclude(evaluation)
            for logger in self.trainer.loggers:
                if isinstance(logger, RunWandbLogger):
                    log_report(logger.experiment, evaluation, summary)
            say(*headline(evaluation, summary).split("\n"), f"rows and summary.csv are in {self.run_dir}", *failures)
        self.trainer.strategy.barrier()

    def complete(self, evaluation: Record) -> None:
        """The last work of rank zero, called when all rows are written."""
        self._audio.prune(evaluation.rows)

    def _description(self, stage: str) -> dict[str, Any]:
        data = self.trainer.datamodule
        self._parts = data.dataloader_names(stage)
        systems = {name: describe_system(recognizer) for name, recognizer in self.systems}
        conditions = {name: describe_condition(attack, seed=self.seed) for name, attack in self.conditions.items()}
        sizes = zip(self._parts, data.num_utterances(stage), strict=True)
        parts = {name: {"num_utterances": size} for name, size in sizes}
        return {"seed": self.seed, "systems": systems, "conditions": conditions, "parts": parts}

    def _missing(self, batch: AudioBatch, data: list[str], cell: Cell) -> list[int]:
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
        batch: AudioBatch,
        missing: list[int],
        cell: Cell,
        data: list[str],
        shared: SharedAttacks,
    ) -> None:
        # The whole batch is attacked even if some of its rows exist already. Rounding depends on the batch, so attacking the
        # missing utterances alone could give other results than an evaluation that was not killed.
        start = time.perf_counter()
        attack = self.conditions[cell[1]]
        hashes = {kind: self._hashes[kind][name] for kind, name in zip(("system", "condition"), cell, strict=False)}
        source = self._sources[cell[:2]]
        generated = shared.get(source)
        if generated is None:
            partial = self._partial([source or hashes["system"], hashes["condition"], data])
            seeds = utterance_seeds(self.seed, batch.ids)
            generated = attack.generate(recognizer, batch, seeds=seeds, partial=partial)
            shared.keep(source, generated, partial)
        result = self.judged(recognizer, attack, batch, generated, cell)
        rows = rows_of_cell(
            result,
            batch,
            missing,
            cell,
            hashes,
            data=data,
            seconds=time.perf_counter() - start,
            sample_rate=self.sample_rate,
            paid_by=self._payer(cell),
        )
        self.keep_audio_of(rows, missing, batch, result)
        self._writer.append(rows)
        self._rows.update({(*cell, row["id"]): row for row in rows})

    def _payer(self, cell: Cell) -> str:
        """The system whose rows count the passes of a cell's attack: the first of the systems that share the attacked audio."""
        source = self._sources[cell[:2]]
        if source is None:
            return cell[0]
        return next(name for name in self.names if self._sources[name, cell[1]] == source)

    def _partial(self, work: list[Any]) -> PartialState:
        path = self.run_dir / "partial" / f"{digest([*work, self.seed])}.ckpt"
        return PartialState(path, every_seconds=self.keep_every_seconds)

    def judged(
        self, recognizer: Recognizer, attack: Attack, batch: AudioBatch, generated: Generated, cell: Cell
    ) -> AttackResult:
        """The result from which the rows of a batch are made. ``AttackSet`` judges the saved audio instead."""
        return attack.verdict(recognizer, batch, generated, seeds=utterance_seeds(self.seed, batch.ids))

    def keep_audio_of(self, rows: list[Row], indices: list[int], clean: AudioBatch, result: AttackResult) -> None:
        """Save audio for these rows. Called before the rows are written, so that a row's audio always exists."""
        self._audio.keep_worst(rows, indices, clean, result.batch)

    def _say(self, what: str, *, share: float = 0.0) -> None:
        """What begins now, and its share of the work on this batch: the time left follows from the cells finished so far."""
        if isinstance(self.trainer.progress_bar_callback, RunProgress):
            self.trainer.progress_bar_callback.say(what, share=share)

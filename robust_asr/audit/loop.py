"""Audio from disk and the loop over it, by the packages that stand on the library.

They are imported inside the functions: whoever imports ``robust_asr`` needs neither Lightning nor lhotse, whoever audits a model
needs both.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from robust_asr.attacks.base import Attack
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.text.terminal import say
from robust_asr.types import AudioBatch

if TYPE_CHECKING:
    from datamodules.preparing.parts import Part
    from datamodules.speech import Speech

PART = "audio"
DATA = "data"
_SHOWN = 5


def locked(out: Path) -> AbstractContextManager[None]:
    """The folder is this process's alone inside the block. Errors: ValueError where another job is in it."""
    from lightning_modules.command_line.run_lock import run_lock

    return run_lock(out)


def read_audio(path: Path, recognizer: Recognizer, *, utterances: int) -> Part:
    """The utterances that are measured, chosen by a hash of their ids; nothing is written yet, and no audio opened.

    Utterances whose text the recogniser cannot write are left out, with a finding.

    Errors: ValueError if none is left.
    """
    from datamodules.preparing.any_audio import read_any
    from datamodules.preparing.parts import Finding

    part = read_any(path, PART)
    for utterance in part.without_findings():
        if unknown := recognizer.unwritable(part.texts[utterance]):
            message = f"{utterance} has {unknown}, which the model cannot write"
            part.findings.append(Finding(part.transcripts[utterance], message, utterance))
    good = part.without_findings()
    if not good:
        raise ValueError(f"audio: {path} holds no utterance to measure; the first fault: {part.findings[0]}")
    order = dict(zip(good, utterance_seeds(0, good).tolist(), strict=True))
    for utterance in set(part.texts) - set(sorted(good, key=order.__getitem__)[:utterances]):
        del part.texts[utterance]
    return part


def write_audio(part: Part, out: Path) -> None:
    """Manifests of a part, every sample of it read once. Errors: ValueError if no audio of it can be read."""
    from datamodules.preparing.corpus import write_corpus

    is_new = not out.exists()
    findings = write_corpus(part.root, [part], out, num_jobs=1)
    fatal = [finding for finding in findings if finding.is_fatal]
    if fatal:
        if is_new:
            shutil.rmtree(out)
        raise ValueError(f"audio: {fatal[0]}; the first fault: {findings[0]}")
    say(*(f"left out: {finding}" for finding in findings[:_SHOWN]))
    if len(findings) > _SHOWN:
        say(f"left out: {len(findings) - _SHOWN} more")


def batches_of(folder: Path, recognizer: Recognizer, *, batch_seconds: float) -> Speech:
    """The written audio as batches: alone where the recogniser hears its padding, or where ``batch_seconds`` is 0."""
    from datamodules.speech import Speech

    window = float(recognizer.window(torch.ones(1, dtype=torch.long))) / recognizer.sample_rate
    data = Speech(
        str(folder),
        test=[PART],
        sample_rate=recognizer.sample_rate,
        window_seconds=window,
        max_duration=max(batch_seconds, window, 1.0),
        evaluation_batching="similar" if batch_seconds and recognizer.padding_invariant else "alone",
    )
    data.setup("test")
    return data


def each_alone(data: Speech) -> list[AudioBatch]:
    """Every utterance as a batch of its own, from the shortest to the longest."""
    (loader,) = data.test_dataloader()
    alone = [batch.select([row]) for batch in loader for row in range(len(batch))]
    return sorted(alone, key=lambda batch: (int(batch.lengths), batch.ids))


def evaluate(
    systems: Mapping[str, Recognizer], conditions: Mapping[str, Attack], data: Speech, out: Path, *, seed: int
) -> None:
    """Write the rows of every system under every condition; those that are there already are not computed again."""
    import pytorch_lightning as pl

    from lightning_modules.callbacks.preemption import StoppedEvaluation
    from lightning_modules.callbacks.progress import RunProgress
    from lightning_modules.command_line.messages import silence
    from lightning_modules.evaluation import Evaluation

    silence()
    # Which accelerators there are.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        default_root_dir=out,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=[RunProgress(), StoppedEvaluation()],
    )
    trainer.test(Evaluation(dict(systems), dict(conditions), seed=seed), datamodule=data, verbose=False)

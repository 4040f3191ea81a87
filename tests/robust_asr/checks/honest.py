"""Spoken tones, and evaluations of recognisers on them as ``train.py test`` records them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_asr.attacks.base import Attack
from robust_asr.measuring.audio import WorstAudio
from robust_asr.measuring.rows import data_hash, rows_of_cell
from robust_asr.measuring.systems import describe_condition, describe_system
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.results import Evaluation, RowWriter, read_evaluation, write_description
from robust_asr.types import AudioBatch
from tests.corpus import WORDS, speak

PART = "dev"


def spoken(num: int, *, seed: int = 0) -> AudioBatch:
    """One to four words each."""
    generator = torch.Generator().manual_seed(seed)
    words, texts = list(WORDS), []
    for _ in range(num):
        count = int(torch.randint(1, 5, (1,), generator=generator))
        texts.append(" ".join(words[index] for index in torch.randint(5, (count,), generator=generator).tolist()))
    rows = [torch.from_numpy(speak(text, seed=1000 * seed + row)) for row, text in enumerate(texts)]
    lengths = torch.tensor([len(row) for row in rows])
    ids = tuple(f"tones-{seed}-{row:03d}" for row in range(num))
    return AudioBatch(nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, tuple(texts), ids)


def evaluated(
    run_dir: Path,
    systems: Mapping[str, Recognizer],
    conditions: Mapping[str, Attack],
    batch: AudioBatch,
    *,
    seed: int = 0,
    keep_audio: int = 3,
) -> Evaluation:
    """What an evaluation of one part, in one batch, leaves in its run folder."""
    described = {name: describe_system(recognizer) for name, recognizer in systems.items()}
    about = {name: describe_condition(attack, seed=seed) for name, attack in conditions.items()}
    parts = {PART: {"num_utterances": len(batch)}}
    write_description(run_dir, {"seed": seed, "systems": described, "conditions": about, "parts": parts})
    writer, audio = RowWriter(run_dir), WorstAudio(run_dir, [], keep=keep_audio, sample_rate=16_000)
    for condition, attack in conditions.items():
        for system, recognizer in systems.items():
            result = attack(recognizer, batch, seeds=utterance_seeds(seed, batch.ids))
            hashes = {"system": described[system]["hash"], "condition": about[condition]["hash"]}
            rows = rows_of_cell(
                result,
                batch,
                range(len(batch)),
                (system, condition, PART),
                hashes,
                data=[data_hash(batch, row) for row in range(len(batch))],
                seconds=0.0,
                sample_rate=16_000,
                paid_by=system,
            )
            audio.keep_worst(rows, range(len(batch)), batch, result.batch)
            writer.append(rows)
    return read_evaluation(run_dir)


def seeds_of(batch: AudioBatch, seed: int = 0) -> Tensor:
    return utterance_seeds(seed, batch.ids)

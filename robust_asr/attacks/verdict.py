"""The verdict: loss and transcript of attacked audio, and which utterances may share a pass through the recogniser.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_asr.models.base import Recognizer
from robust_asr.types import AudioBatch, Status, Transcript


@dataclass(frozen=True)
class AttackResult:
    """The result of an attack on a batch, measured on the attacked waveforms.

    Shape: every tensor (B,), on the CPU; ``batch`` holds the attacked waveforms with the true texts and ids.

    Attributes:
        texts: the text that each utterance was attacked with: its target, or its reference.
        compared_texts, compared_references: those texts, and the references, as the transcripts are compared with them.
        targeted: whether ``texts`` are targets.
        success: whether the goal was reached, on draws that the attack never saw; False for audio that nobody could hear, and
            where the recogniser's scores are not finite.
        loss: the loss of ``texts``, in nats, on the same draws; nan where it is not defined.
        size: the size of the perturbation, in the unit of the threat model.
        iterations, forwards: the work that the attack spent on each utterance, without the verdict; a forward is one pass of one
            utterance through the recogniser, with or without a gradient.
        transcripts: the transcripts of the attacked audio, with a detector's score and flag if there is a detector.
        status, notes: the status of each utterance, and a sentence that explains any status other than "attacked", else "".
        members: of an ensemble, the name of the attack that found each perturbation; else "".
        facts: further fields of each utterance's row, which only this attack has.
    """

    batch: AudioBatch
    texts: tuple[str, ...]
    compared_texts: tuple[str, ...]
    compared_references: tuple[str, ...]
    targeted: bool
    success: Tensor
    loss: Tensor
    size: Tensor
    iterations: Tensor
    forwards: Tensor
    transcripts: tuple[Transcript, ...]
    status: tuple[Status, ...]
    notes: tuple[str, ...]
    members: tuple[str, ...]
    facts: tuple[dict[str, Any], ...]

    @property
    def hypotheses(self) -> tuple[str, ...]:
        return tuple(transcript.text for transcript in self.transcripts)


@dataclass(frozen=True)
class Judgement:
    """Shape: tensors (B,), on the CPU.

    Attributes:
        losses: the loss of each text, nan where it is not defined.
        heard: whether an utterance could be heard: it has audio, which is finite and not longer than the recogniser hears.
        scored: False where the loss of a text that the recogniser can write is nan, so that its scores are not finite.
    """

    losses: Tensor
    transcripts: tuple[Transcript, ...]
    heard: Tensor
    scored: Tensor


def judge(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Judgement:
    """The loss of each text and the transcripts. One pass gives both. Shape: seeds (B,)."""
    losses = torch.full((len(batch),), torch.nan)
    transcripts = [Transcript("")] * len(batch)
    within = recognizer.hears(batch.lengths)
    heard_at_all = (batch.waveforms.isfinite().all(1) & (batch.lengths > 0) & within).cpu()
    audible = heard_at_all.tolist()
    writable = [can_write(recognizer, text) for text in texts]
    for flag in (True, False):
        rows = [row for row in range(len(batch)) if audible[row] and writable[row] is flag]
        for together in rows_that_pass_together(recognizer, batch, rows):
            part, keyed = batch.select(together), seeds[together]
            if flag:
                targets = recognizer.targets([texts[row] for row in together])
                with torch.no_grad():
                    values, heard = recognizer.loss_and_transcripts(part.waveforms, part.lengths, targets, seeds=keyed)
                losses[together] = values.cpu().float()
            else:
                heard = recognizer.transcribe(part.waveforms, part.lengths, seeds=keyed)
            for row, transcript in zip(together, heard, strict=True):
                transcripts[row] = transcript
    not_finite = losses.isnan() & heard_at_all & torch.tensor(writable, dtype=torch.bool)
    return Judgement(losses, tuple(transcripts), heard_at_all, ~not_finite)


def can_write(recognizer: Recognizer, text: str) -> bool:
    """Whether a recogniser has labels for a text."""
    try:
        recognizer.targets([text])
    except ValueError:
        return False
    return True


def fits(recognizer: Recognizer, length: Tensor, text: str) -> bool:
    """Whether a recogniser can write a text and the audio is long enough for it. Shape: length (1,)."""
    return can_write(recognizer, text) and bool(recognizer.feasible(length, recognizer.targets([text])).all())


def rows_that_pass_together(recognizer: Recognizer, batch: AudioBatch, rows: list[int]) -> list[list[int]]:
    """Groups of rows that may share a pass: all rows, or, if the recogniser's result depends on padding, rows of equal length."""
    if recognizer.padding_invariant:
        return [rows] if rows else []
    groups: dict[int, list[int]] = {}
    lengths = batch.lengths.tolist()
    for row in rows:
        groups.setdefault(lengths[row], []).append(row)
    return list(groups.values())

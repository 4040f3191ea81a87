"""The rows of an evaluation: the measurements on one utterance, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from robust_asr.attacks.verdict import AttackResult
from robust_asr.metrics import snr_db, utterance_errors, word_errors
from robust_asr.results import Row, audio_hash
from robust_asr.types import AudioBatch, Transcript


def rows_of_cell(
    result: AttackResult,
    clean: AudioBatch,
    indices: Iterable[int],
    cell: tuple[str, str, str],
    hashes: Mapping[str, str],
    *,
    data: Sequence[str],
    seconds: float,
    sample_rate: int,
    paid_by: str,
) -> list[Row]:
    """A row for each of the utterances at ``indices``.

    Args:
        cell: the names of system, condition and data part.
        hashes: the hashes of the system and of the condition.
        data: the ``data_hash`` of each utterance of the batch.
        seconds: the time that the whole batch took; it is divided among the utterances in proportion to their lengths.
        paid_by: the system whose rows count the passes of the attack. In rows of other systems ``forwards`` is 0, and ``paid_by``
            names that system.
    """
    per_sample = seconds / max(int(clean.lengths.sum()), 1)
    return [
        {
            **dict(zip(("system", "condition", "part"), cell, strict=True)),
            **measured(result, clean, index, seconds_per_sample=per_sample, sample_rate=sample_rate),
            **({} if paid_by == cell[0] else {"forwards": 0, "paid_by": paid_by}),
            "hashes": {**hashes, "data": data[index]},
        }
        for index in indices
    ]


def measured(
    result: AttackResult, clean: AudioBatch, index: int, *, seconds_per_sample: float, sample_rate: int
) -> Row:
    """The measured fields of a row: texts and errors, size of the perturbation, cost.

    ``forwards`` and ``iterations`` count the work of the attack, without the verdict; ``member`` names the attack of an ensemble
    that won. The SNR is computed from the audio. ``AttackResult.facts`` add the fields of an attack of its own.
    ``changed_samples`` is the share of the samples that differ from the clean audio, of those that are not zero there: signs of a
    whole gradient move them all; null for digital silence.

    Units: seconds_per_sample in seconds of computing time; snr_db in dB, null if the audio is unchanged.
    """
    length = int(clean.lengths[index])
    before, after = (batch.waveforms[index, :length] for batch in (clean, result.batch))
    return {
        "id": clean.ids[index],
        **_texts_and_errors(result, index),
        "snr_db": _number(snr_db(before, after), 4),
        "size": _number(float(result.size[index]), 8),
        "changed_samples": _number(_changed(before, after), 4),
        "iterations": int(result.iterations[index]),
        "forwards": int(result.forwards[index]),
        "audio_seconds": round(length / sample_rate, 6),
        "seconds": round(seconds_per_sample * length, 6),
        "status": result.status[index].value,
        "note": result.notes[index],
        **({"member": result.members[index]} if result.members[index] else {}),
        **_detected(result.transcripts[index]),
        **result.facts[index],
    }


def _changed(before: Tensor, after: Tensor) -> float:
    """The share of the audible samples that changed; nan where none is audible. Shape: both (T,)."""
    audible = before != 0
    return float((after != before)[audible].double().mean())


def _detected(transcript: Transcript) -> Row:
    """The fields ``score`` and ``flagged`` of a system with a detector; else none."""
    return {} if transcript.score is None else {"score": transcript.score, "flagged": transcript.flagged}


def _texts_and_errors(result: AttackResult, index: int) -> Row:
    """Reference, hypothesis and target, the loss and success of the attack, and the error counts.

    Errors are counted on the texts as the recogniser compares them. The hypothesis is in this form; ``compared_reference`` and
    ``compared_target`` stand beside a reference and a target that are not, ``written`` is what the recogniser wrote.
    """
    reference, hypothesis, text = result.batch.texts[index], result.hypotheses[index], result.texts[index]
    compared_reference, compared_text = result.compared_references[index], result.compared_texts[index]
    written = result.transcripts[index].written
    row = {
        "reference": reference,
        "hypothesis": hypothesis,
        **({"compared_reference": compared_reference} if compared_reference != reference else {}),
        **({"written": written} if written else {}),
        **utterance_errors(compared_reference, hypothesis)._asdict(),
        "loss": _number(float(result.loss[index]), 5),
        "success": bool(result.success[index]),
        "target": text if result.targeted else None,
    }
    if result.targeted:
        errors, words = word_errors(compared_text, hypothesis)
        row |= {"target_errors": errors, "target_words": words}
        row |= {"compared_target": compared_text} if compared_text != text else {}
    return row


def data_hash(batch: AudioBatch, index: int) -> str:
    """A hash of the samples and the text of one utterance."""
    return audio_hash(batch.waveforms[index, : int(batch.lengths[index])], batch.texts[index])


def _number(value: float, digits: int) -> float | None:
    """The rounded value; None for infinity and nan, which JSON cannot hold."""
    return round(value, digits) if abs(value) < float("inf") else None

"""What an evaluation measures of one utterance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from robust_asr.attacks.base import AttackResult
from robust_asr.metrics import count_errors, snr_db
from robust_asr.results import Row, audio_hash
from robust_asr.types import AudioBatch


def rows_of_cell(
    result: AttackResult,
    clean: AudioBatch,
    indices: Iterable[int],
    cell: tuple[str, str, str],
    hashes: Mapping[str, str],
    *,
    seconds: float,
    sample_rate: int,
) -> list[Row]:
    """A row for each of the utterances at ``indices``.

    Args:
        cell: system, condition and part.
        hashes: of the system and of the condition.
        seconds: that the whole batch took; an utterance has the share of its length.
    """
    per_sample = seconds / max(int(clean.lengths.sum()), 1)
    return [
        {
            **dict(zip(("system", "condition", "part"), cell, strict=True)),
            **measured(result, clean, index, seconds_per_sample=per_sample, sample_rate=sample_rate),
            "hashes": {**hashes, "data": data_hash(clean, index)},
        }
        for index in indices
    ]


def measured(
    result: AttackResult, clean: AudioBatch, index: int, *, seconds_per_sample: float, sample_rate: int
) -> Row:
    """The part of a row that was measured: texts and errors, size of the perturbation, cost.

    ``forwards`` and ``iterations`` are the attacker's, without the verdict. The SNR is computed from the audio.

    Units: seconds_per_sample of computing time; snr_db in dB, null where nothing was changed.
    """
    length = int(clean.lengths[index])
    before, after = (batch.waveforms[index, :length] for batch in (clean, result.batch))
    return {
        "id": clean.ids[index],
        **_texts_and_errors(result, index),
        "snr_db": _number(snr_db(before, after), 4),
        "size": _number(float(result.size[index]), 8),
        "iterations": int(result.iterations[index]),
        "forwards": int(result.forwards[index]),
        "audio_seconds": round(length / sample_rate, 6),
        "seconds": round(seconds_per_sample * length, 6),
        "note": result.notes[index],
        "status": {"": "attacked", "n": "refused", "i": "masked gradient"}.get(result.notes[index][:1], "broken off"),
    }


def _texts_and_errors(result: AttackResult, index: int) -> Row:
    """What was said, wanted and heard, and the counts of errors between them."""
    reference, hypothesis, text = result.batch.texts[index], result.hypotheses[index], result.texts[index]
    count = count_errors([reference], [hypothesis])
    row = {
        "reference": reference,
        "hypothesis": hypothesis,
        "words": count["reference_words"],
        **{name: count[name] for name in ("insertions", "deletions", "substitutions", "character_errors")},
        "characters": count["reference_characters"],
        "loss": _number(float(result.loss[index]), 5),
        "success": bool(result.success[index]),
        "target": text if result.targeted else None,
    }
    if result.targeted:
        count = count_errors([text], [hypothesis])
        errors = count["insertions"] + count["deletions"] + count["substitutions"]
        row |= {"target_errors": errors, "target_words": count["reference_words"]}
    return row


def data_hash(batch: AudioBatch, index: int) -> str:
    """Of the samples and the text of one utterance."""
    return audio_hash(batch.waveforms[index, : int(batch.lengths[index])], batch.texts[index])


def _number(value: float, digits: int) -> float | None:
    """None where JSON has no number for it."""
    return round(value, digits) if abs(value) < float("inf") else None

"""What an attack refuses, with a reason: audio and texts of single utterances, and the precision of a whole batch.

Legend: B utterances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_asr.models.base import Recognizer
from robust_asr.threat import ThreatModel, in_box
from robust_asr.types import AudioBatch


def check_precision(recognizer: Recognizer, batch: AudioBatch) -> None:
    """ValueError for audio in half precision, which holds no perturbation of one 16-bit step, and for float64 audio of a float32
    recogniser. A recogniser of another precision than its audio's may convert the audio itself.
    """
    found = str(batch.waveforms.dtype).removeprefix("torch.")
    if batch.waveforms.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"waveforms must be float32 in [-1, 1], found {found}; 16-bit integers become so by / 32768")
    if found == "float64" and {parameter.dtype for parameter in recognizer.parameters()} == {torch.float32}:
        raise ValueError("waveforms are float64, the recogniser computes in float32: convert one of them")


def audio_reasons(threat: ThreatModel, recognizer: Recognizer, batch: AudioBatch) -> list[str]:
    """For each utterance: why its audio cannot be attacked; "" where it can."""
    faults = {
        "its audio is not finite": ~batch.waveforms.isfinite().all(1),
        "it has no audio": batch.lengths == 0,
        "its audio leaves [-1, 1] or its padding is not zero": ~in_box(batch.waveforms, batch),
        "its audio is longer than the recogniser can hear": ~recognizer.hears(batch.lengths),
        "it is silent, which has no signal-to-noise ratio": ~threat.defined(batch),
    }
    rows = torch.stack(list(faults.values()), 1).tolist()
    return [next((why for why, flag in zip(faults, row, strict=True) if flag), "") for row in rows]


def text_reasons(recognizer: Recognizer, lengths: Tensor, texts: Sequence[str], rows: Sequence[int]) -> list[str]:
    """For each utterance at ``rows``: why its text cannot be written or does not fit into its audio; "" if neither is true."""
    reasons = dict.fromkeys(rows, "")
    for row in rows:
        try:
            recognizer.targets([texts[row]])
        except ValueError as error:
            reasons[row] = str(error)
    writable = [row for row, reason in reasons.items() if not reason]
    if writable:
        # All utterances in one call: the host then waits for the device once, not once for every utterance.
        fits = recognizer.feasible(lengths[writable], recognizer.targets([texts[row] for row in writable])).tolist()
        for row, fit in zip(writable, fits, strict=True):
            reasons[row] = "" if fit else f"the text {texts[row]!r} does not fit into {int(lengths[row])} samples"
    return list(reasons.values())

"""The recogniser's own transcripts of clean audio, as texts for its loss.

Legend: B utterances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.attacks.verdict import fits
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, derive
from robust_asr.types import AudioBatch


def own_texts(recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> list[str | None]:
    """What a recogniser writes on clean audio, with its case and punctuation; of a random one, on one draw that nothing else uses.

    None where its loss does not take the text: a decoder can write bytes that are no characters.

    Shape: seeds (B,) int64 -> B texts. One transcript of each utterance.
    """
    with torch.no_grad():
        heard = recognizer.transcribe(batch.waveforms, batch.lengths, seeds=derive(seeds, step=Key.CLEAN_LABELS))
    texts = [transcript.written or transcript.text for transcript in heard]
    lengths = batch.lengths.cpu()
    return [text if fits(recognizer, lengths[row : row + 1], text) else None for row, text in enumerate(texts)]

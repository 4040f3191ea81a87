"""The texts of a corpus without its audio, for language models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lhotse.cut import MonoCut
from torch.utils.data import Dataset

from datamodules.speech import Speech
from robust_asr.types import AudioBatch


class Transcripts(Speech):
    """``Speech`` whose batches hold texts and ids, and no samples: an epoch of 960 h is read in a minute.

    ``max_duration`` counts the seconds that the texts were spoken in, so that texts of about one length come together.

    Args:
        others: the arguments of ``Speech``; ``shar`` and ``speed_perturb`` are refused.

    Errors: ValueError names the field.
    """

    def __init__(
        self,
        manifests: str,
        train: list[str] | None = None,
        validate: list[str] | None = None,
        test: list[str] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(manifests, train, validate, test, **others)
        if self.shar or len(self._selection.speeds) > 1:
            raise ValueError("shar and speed_perturb must be false: a text has no audio, and no speed")
        self._training_audio = self._utterances = Texts()


class Texts(Dataset):
    """Indexed by cuts, answers with the batch of their texts, each with no samples."""

    def __getitem__(self, cuts: Iterable[MonoCut]) -> AudioBatch:
        cuts = list(cuts)
        return AudioBatch(
            waveforms=torch.zeros(len(cuts), 0),
            lengths=torch.zeros(len(cuts), dtype=torch.long),
            texts=tuple(cut.supervisions[0].text for cut in cuts),
            ids=tuple(cut.id for cut in cuts),
        )

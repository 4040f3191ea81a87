"""Recognisers that hear the target exactly where a test says so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.goals import Goal
from robust_asr.models.base import Recognizer
from robust_asr.types import AudioBatch, Transcript
from tests.robust_asr.attacks.oracles import Oracle, seeds_of


class Peak(Oracle):
    """Its loss falls by 1 a unit of every sample; it hears "NO" once the largest sample is ``needed`` of that length."""

    def __init__(self, needed: dict[int, float]) -> None:
        super().__init__()
        self.needed = needed
        self.looks: list[int] = []

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return -waveforms.sum(1)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        self.looks.append(len(waveforms))
        peaks = zip(waveforms.abs().amax(1).tolist(), lengths.tolist(), strict=True)
        return [Transcript("NO" if peak >= self.needed[length] else "LOW") for peak, length in peaks]


class Scripted(Oracle):
    """||x - w||^2 / 2; look i hears "NO" where ``script[i]`` says so, by the length of the utterance."""

    def __init__(self, wanted: Tensor, script: Sequence[dict[int, bool]]) -> None:
        super().__init__()
        self.register_buffer("wanted", wanted)
        self.script = list(script)
        self.looks = 0

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return (waveforms - self.wanted[: waveforms.shape[1]]).square().sum(1) / 2

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        said = self.script[min(self.looks, len(self.script) - 1)]
        self.looks += 1
        return [Transcript("NO" if said[length] else "LOW") for length in lengths.tolist()]


def silence(*lengths: int) -> AudioBatch:
    ids = tuple(f"silence-{length}" for length in lengths)
    return AudioBatch(torch.zeros(len(lengths), max(lengths)), torch.tensor(lengths), ("LOW",) * len(ids), ids)


def workload(recognizer: Recognizer, batch: AudioBatch, goal: Goal) -> Workload:
    texts = goal.texts(batch, seeds=seeds_of(batch))
    return Workload.whole(batch, recognizer.targets(texts), texts, seeds=seeds_of(batch))

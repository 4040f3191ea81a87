"""Transfer attacks: an adversarial set on disk, made against one system, used as an attack on any other system."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.models.base import Recognizer
from robust_asr.results import Evaluation, Row, audio_hash, audio_path, read_evaluation
from robust_asr.storage.audio import as_float, measured
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import ThreatModel, Unbounded
from robust_asr.types import AudioBatch, Targets, Transcript


@dataclass(frozen=True)
class SavedGoal(Goal):
    """The goal that a set was made with: its recorded targets, or for an untargeted set any text but the reference."""

    saved: Saved

    @property
    def sign(self) -> int:
        return -1 if self.saved.targeted else 1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        rows = (self.saved.row(utterance) for utterance in batch.ids)
        return tuple(row.get("target") or text for row, text in zip(rows, batch.texts, strict=True))

    def wins(self, text: str, transcript: Transcript) -> bool:
        return self.saved.targeted is not Untargeted().wins(text, transcript)

    def damage(self, text: str, transcript: Transcript) -> float:
        damage = Untargeted().damage(text, transcript)
        return -damage if self.saved.targeted else damage


@dataclass(frozen=True)
class Saved(Attack):
    """The audio of an adversarial set made by ``train.py predict``, for utterances of the data that the set was made from.

    ``digest`` is the digest of the set's rows. Without it the digest is filled in; with it the set must have that digest, so an
    evaluation never mixes results of two sets that were written to the same folder one after the other.

    Errors: ValueError names the set and an utterance that is not in the set or whose audio differs from the recorded audio.
    """

    folder: str
    digest: str | None = None

    needs_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        digest = self._evaluation.digest
        if self.digest not in (None, digest):
            raise ValueError(f"folder: the set in {self.folder} has changed (digest {digest}, expected {self.digest})")
        object.__setattr__(self, "digest", digest)
        if len(self._evaluation.systems) != 1 or len(self._evaluation.conditions) != 1:
            raise ValueError(f"folder: {self.folder} holds no adversarial set: a set has one system and one attack")

    @property
    def threat(self) -> ThreatModel:
        return Unbounded()

    @property
    def goal(self) -> Goal:
        return SavedGoal(self)

    @property
    def targeted(self) -> bool:
        return any(row.get("target") is not None for row in self._rows.values())

    @property
    def name(self) -> str:
        (condition,) = self._evaluation.conditions.values()
        return condition["columns"]["attack"]

    def columns(self) -> dict[str, Any]:
        (condition,) = self._evaluation.conditions.values()
        # The attacker's knowledge in these columns was of another system, the one that the set was made against.
        return {**condition["columns"], "knowledge": "transfer"}

    def row(self, utterance: str) -> Row:
        """The row of the set for an utterance."""
        if utterance not in self._rows:
            raise ValueError(f"{self.folder}: the adversarial set holds no utterance {utterance}")
        return self._rows[utterance]

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        # One copy to the device for the whole batch.
        waveforms = torch.zeros(batch.waveforms.shape)
        for index, (utterance, length) in enumerate(zip(batch.ids, batch.lengths.tolist(), strict=True)):
            waveforms[index, :length] = self._waveform(utterance, length)
        nothing = torch.zeros(len(batch), dtype=torch.long)
        return Perturbation(waveforms.to(batch.waveforms), nothing, nothing)

    def _waveform(self, utterance: str, length: int) -> Tensor:
        row = self.row(utterance)
        path = audio_path(Path(self.folder), row["system"], row["condition"], row["part"], row["id"])
        if not path.resolve().is_relative_to(Path(self.folder).resolve()):
            raise ValueError(f"{path}: the audio of utterance {utterance} is a link to a file outside the set")
        try:
            _, samples = measured(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: the audio of utterance {utterance} cannot be read ({error})") from error
        waveform = torch.from_numpy(as_float(samples))
        if waveform.shape != (length,) or audio_hash(waveform) != row.get("audio"):
            raise ValueError(f"{path}: is not the audio that the set recorded for utterance {utterance}")
        return waveform

    @cached_property
    def _evaluation(self) -> Evaluation:
        return read_evaluation(self.folder)

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row["id"]: row for row in self._evaluation.rows}

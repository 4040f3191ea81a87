"""The text that an attack moves away from or towards, where it is not the one that transcripts are compared with.

Legend: B utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robust_asr.attacks.aims import LossOf, Sum
from robust_asr.attacks.goals import AwayFrom, Goal
from robust_asr.attacks.own_texts import own_texts
from robust_asr.models.base import Recognizer
from robust_asr.types import AudioBatch, Targets


@dataclass(frozen=True)
class Climbed:
    """The targets of an attack.

    Attributes:
        targets: those of one text for each utterance; of two texts, an ``Aim``, whose value is the sum of both losses.
        sources: for each utterance, which text it is; empty where the goal's own texts were asked for.
    """

    targets: Targets
    sources: tuple[AwayFrom, ...] = ()

    @property
    def facts(self) -> tuple[dict[str, str], ...]:
        """The field ``climbed`` of each utterance's row; empty where the goal's own texts were asked for."""
        return tuple({"climbed": source} for source in self.sources)


def climbed(goal: Goal, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Climbed:
    """The targets of each utterance, as the goal chooses; ``texts`` are the goal's own.

    Where the recogniser hears no words in the clean audio, or writes what its loss does not take, it is the goal's own text, and
    the utterance's source says so.

    Shape: seeds (B,) int64.
    """
    wanted, given = goal.climbs(recognizer), recognizer.targets(texts)
    if wanted == "reference":
        return Climbed(given)
    own = own_texts(recognizer, batch, seeds=seeds)
    has_own = [text is not None and bool(recognizer.compared(text).strip()) for text in own]
    chosen = recognizer.targets([mine if has else text for mine, has, text in zip(own, has_own, texts, strict=True)])
    sources = tuple(wanted if has else "reference" for has in has_own)
    if wanted == "transcript":
        return Climbed(chosen, sources)
    return Climbed(Sum((LossOf(given, goal.sign), LossOf(chosen, goal.sign))), sources)


def passes_to_climb(goal: Goal, recognizer: Recognizer) -> int:
    """The passes of each utterance through the recogniser in ``climbed``."""
    return 0 if goal.climbs(recognizer) == "reference" else recognizer.forwards_per_transcript

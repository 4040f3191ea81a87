"""What an attack wants the recogniser to hear: something else, or a given text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robust_asr.text import normalize
from robust_asr.types import AudioBatch


class Goal(ABC):
    """The text whose loss an attack moves, in which direction, and when it has won.

    Attributes:
        sign: +1 where the loss is to rise (untargeted), -1 where it is to fall (targeted).
    """

    sign: int

    @abstractmethod
    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        """The text that each utterance is attacked with. Shape: seeds (B,)."""

    @abstractmethod
    def reached(self, texts: Sequence[str], hypotheses: Sequence[str]) -> list[bool]:
        """Whether each hypothesis is what the attacker wanted; ``texts`` are those of ``texts()``."""

    @property
    def targeted(self) -> bool:
        return self.sign < 0


@dataclass(frozen=True)
class Untargeted(Goal):
    """Away from the reference. Reached where the hypothesis differs from it."""

    sign = 1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        return batch.texts

    def reached(self, texts: Sequence[str], hypotheses: Sequence[str]) -> list[bool]:
        return [normalize(text) != normalize(hypothesis) for text, hypothesis in zip(texts, hypotheses, strict=True)]

"""What an attack wants the recogniser to hear: something else, or a given text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robust_asr.attacks.phrases import Phrases
from robust_asr.randomness import derive
from robust_asr.text import normalize
from robust_asr.types import AudioBatch

# Which phrase is wanted: far from the step and draw numbers that attacks use, and from the verdict's.
_CHOICE = 2**41


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


@dataclass(frozen=True)
class Targeted(Goal):
    """Towards a phrase of the attacker's, of about the length of the reference. Reached where it is heard word for word.

    The choice is keyed by the utterance's seed: every system and every strength of an attack meets the same target.

    Errors: ValueError names an utterance that says the only phrase there is.
    """

    phrases: Phrases

    sign = -1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        rows = zip(batch.ids, batch.texts, derive(seeds, step=_CHOICE).tolist(), strict=True)
        return tuple(self._target(utterance, reference, seed) for utterance, reference, seed in rows)

    def reached(self, texts: Sequence[str], hypotheses: Sequence[str]) -> list[bool]:
        return [normalize(text) == normalize(hypothesis) for text, hypothesis in zip(texts, hypotheses, strict=True)]

    def _target(self, utterance: str, reference: str, seed: int) -> str:
        try:
            return self.phrases.choose(reference, seed=seed)
        except ValueError as error:
            raise ValueError(f"utterance {utterance}: {error}") from error

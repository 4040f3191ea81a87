"""What an attack wants the recogniser to hear: something else, or a given text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robust_asr.attacks.phrases import Phrases
from robust_asr.randomness import Key, derive
from robust_asr.text import normalize
from robust_asr.types import AudioBatch, Transcript


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
    def wins(self, text: str, transcript: Transcript) -> bool:
        """Whether a transcript is what the attacker wanted; ``text`` is that of ``texts()``."""

    def reached(self, texts: Sequence[str], transcripts: Sequence[Transcript]) -> list[bool]:
        """Whether each transcript is what the attacker wanted. What a detector flags the system does not act on: never."""
        pairs = zip(texts, transcripts, strict=True)
        return [not transcript.flagged and self.wins(text, transcript) for text, transcript in pairs]

    @property
    def targeted(self) -> bool:
        return self.sign < 0


@dataclass(frozen=True)
class Untargeted(Goal):
    """Away from the reference. Reached where the transcript differs from it."""

    sign = 1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        return batch.texts

    def wins(self, text: str, transcript: Transcript) -> bool:
        return normalize(text) != normalize(transcript.text)


@dataclass(frozen=True)
class Targeted(Goal):
    """Towards a phrase of the attacker's, of about the length of the reference. Reached where it is heard word for word.

    The choice is keyed by the utterance's seed: every system and every strength of an attack meets the same target.

    Errors: ValueError names an utterance that says the only phrase there is.
    """

    phrases: Phrases

    sign = -1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        rows = zip(batch.ids, batch.texts, derive(seeds, step=Key.TARGET).tolist(), strict=True)
        return tuple(self._target(utterance, reference, seed) for utterance, reference, seed in rows)

    def wins(self, text: str, transcript: Transcript) -> bool:
        return normalize(text) == normalize(transcript.text)

    def _target(self, utterance: str, reference: str, seed: int) -> str:
        try:
            return self.phrases.choose(reference, seed=seed)
        except ValueError as error:
            raise ValueError(f"utterance {utterance}: {error}") from error

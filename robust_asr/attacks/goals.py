"""The goal of an attack: any transcript that differs from the reference (untargeted), or a given text (targeted)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robust_asr.attacks.phrases import Phrases
from robust_asr.metrics import word_errors
from robust_asr.randomness import Key, derive
from robust_asr.text import normalize
from robust_asr.types import AudioBatch, Transcript


class Goal(ABC):
    """The text whose loss an attack changes, the direction of the change, and when a transcript counts as success.

    Attributes:
        sign: +1 if the loss is to rise (untargeted), -1 if it is to fall (targeted).
    """

    sign: int

    @abstractmethod
    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        """The text that each utterance is attacked with. Shape: seeds (B,)."""

    @abstractmethod
    def wins(self, text: str, transcript: Transcript) -> bool:
        """Whether a transcript is a success for the attacker; ``text`` is the utterance's entry in ``texts()``."""

    def damage(self, text: str, transcript: Transcript) -> float:
        """What a transcript is worth to the attacker, the higher, the better; ``text`` is the utterance's entry in ``texts()``.

        A goal that does not say gives 1 for a success, else 0.
        """
        return float(not transcript.flagged and self.wins(text, transcript))

    def most_damage(self, text: str) -> float:
        """The damage from which an utterance counts as lost."""
        return 1.0

    def unattackable(self, text: str) -> str:
        """Why no transcript of ``text`` can be a success, as a clause for a note; "" where one can."""
        return ""

    def reached(self, texts: Sequence[str], transcripts: Sequence[Transcript]) -> list[bool]:
        """Whether each transcript is a success. A flagged transcript never is: the system does not act on flagged audio."""
        pairs = zip(texts, transcripts, strict=True)
        return [not transcript.flagged and self.wins(text, transcript) for text, transcript in pairs]

    @property
    def targeted(self) -> bool:
        return self.sign < 0


@dataclass(frozen=True)
class Untargeted(Goal):
    """Raise the loss of the reference. Reached if the transcript differs from the reference."""

    sign = 1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        return batch.texts

    def wins(self, text: str, transcript: Transcript) -> bool:
        return normalize(text) != normalize(transcript.text)

    def damage(self, text: str, transcript: Transcript) -> float:
        """The word errors; none if a detector flags the audio."""
        return 0.0 if transcript.flagged else float(word_errors(text, transcript.text)[0])

    def most_damage(self, text: str) -> float:
        """As many errors as the reference has words."""
        return float(word_errors(text, "")[1])

    def unattackable(self, text: str) -> str:
        return "" if normalize(text) else "its reference has no words, so there is nothing to be wrong about"


@dataclass(frozen=True)
class WordsWrong(Untargeted):
    """Make a share of the words wrong. Reached with at least that share of the reference's words as word errors.

    Units: share as a fraction of the words, in (0, 1].
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], a fraction of the words, found {self.share}")

    def wins(self, text: str, transcript: Transcript) -> bool:
        errors, words = word_errors(text, transcript.text)
        return words > 0 and errors >= self.most_damage(text)

    def most_damage(self, text: str) -> float:
        """The fewest whole errors that are the share."""
        # A share such as 0.1 of 30 words is 3 of them, whatever the last bit of the product says.
        return float(max(math.ceil(self.share * word_errors(text, "")[1] - 1e-9), 1))


@dataclass(frozen=True)
class Targeted(Goal):
    """Lower the loss of a phrase that is about as long as the reference. Reached if the transcript is exactly that phrase.

    The phrase is chosen by the utterance's seed, so every system and every strength of an attack uses the same target.

    Errors: ValueError names an utterance whose reference equals the only phrase of the list.
    """

    phrases: Phrases

    sign = -1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        rows = zip(batch.ids, batch.texts, derive(seeds, step=Key.TARGET).tolist(), strict=True)
        return tuple(self._target(utterance, reference, seed) for utterance, reference, seed in rows)

    def wins(self, text: str, transcript: Transcript) -> bool:
        return normalize(text) == normalize(transcript.text)

    def damage(self, text: str, transcript: Transcript) -> float:
        """Minus the word errors against the target; those of an empty transcript if a detector flags the audio."""
        return -float(word_errors(text, "" if transcript.flagged else transcript.text)[0])

    def most_damage(self, text: str) -> float:
        """The target, to the word."""
        return 0.0

    def _target(self, utterance: str, reference: str, seed: int) -> str:
        try:
            return self.phrases.choose(reference, seed=seed)
        except ValueError as error:
            raise ValueError(f"utterance {utterance}: {error}") from error

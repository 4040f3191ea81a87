"""The goal of an attack: any transcript that differs from the reference (untargeted), or a given text (targeted)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from robust_asr.attacks.phrases import Phrases
from robust_asr.metrics import word_errors
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, derive
from robust_asr.text import normalize
from robust_asr.types import AudioBatch, Transcript

# The text that an untargeted attack climbs away from: the reference, the recogniser's own transcript of the clean audio, or both.
AwayFrom = Literal["reference", "transcript", "both"]


class Goal(ABC):
    """The text whose loss an attack changes, the direction of the change, and when a transcript counts as success.

    Texts are compared in the form of ``Recognizer.compared``: ``compared`` gives them, and every method that judges a transcript
    takes them in this form.

    Attributes:
        sign: +1 if the loss is to rise (untargeted), -1 if it is to fall (targeted).
    """

    sign: int

    @abstractmethod
    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        """The text that each utterance is attacked with. Shape: seeds (B,)."""

    def compared(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        """The same texts as transcripts of a recogniser are compared with them. Shape: seeds (B,)."""
        return tuple(recognizer.compared(text) for text in self.texts(batch, seeds=seeds))

    def climbs(self, recognizer: Recognizer) -> AwayFrom:
        """Whether the loss that changes is that of ``texts()``, as "reference" says, or of what the recogniser writes itself."""
        return "reference"

    @abstractmethod
    def wins(self, text: str, transcript: Transcript) -> bool:
        """Whether a transcript is a success for the attacker; ``text`` is the utterance's entry in ``compared()``."""

    def damage(self, text: str, transcript: Transcript) -> float:
        """What a transcript is worth to the attacker, the higher, the better; ``text`` is the utterance's entry in ``compared()``.

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
    """Raise the loss of a text. Reached if the transcript differs from the reference, whatever the text.

    Attributes:
        away_from: the text: the ``reference`` as it is given; the ``transcript`` that the recogniser itself writes of the clean
            audio, with its case and punctuation; or ``both``, the sum of the two losses. None, the default, is the reference for a
            recogniser that spells as references are spelled, and both for a ``cased`` one: which text is the stronger differs
            between utterances (benchmarks/README.md). Where a recogniser hears no words in the clean audio, it is the reference;
            the field ``climbed`` of a row says which it was, wherever the reference was not asked for.
    """

    _: KW_ONLY
    away_from: AwayFrom | None = None
    # Rows from before this field are those of its default.
    later_arguments: ClassVar[tuple[str, ...]] = ("away_from",)

    sign = 1

    def __post_init__(self) -> None:
        if self.away_from is not None and self.away_from not in get_args(AwayFrom):
            raise ValueError(
                f"away_from must be one of {', '.join(get_args(AwayFrom))}, or None, found {self.away_from!r}"
            )

    def climbs(self, recognizer: Recognizer) -> AwayFrom:
        return self.away_from or ("both" if recognizer.innermost.cased else "reference")

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
        super().__post_init__()
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

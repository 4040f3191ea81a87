"""Text: normalisation and tokenizers.

``normalize`` is used everywhere that texts are compared or tokenised: in training, metrics and attacks. ``Tokenizer`` is the
contract between a recogniser and its texts, ``CharacterTokenizer`` its simplest form, ``bpe`` one for word pieces. ``alignment``
aligns a hypothesis to its reference. The class path of ``CharacterTokenizer`` is in checkpoints, so the class stays here.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from robust_asr.types import TokenTargets

LIBRISPEECH_CHARACTERS = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ "
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})


def normalize(text: str) -> str:
    """Upper case, one kind of apostrophe, single spaces, no surrounding space.

    No character is removed: a recogniser that cannot write a character raises an error itself.
    """
    # NFC comes a second time because upper() decomposes some characters, and turns one into a letter with an apostrophe.
    upper = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).upper())
    return " ".join(upper.translate(_APOSTROPHES).split())


class Tokenizer(ABC):
    """Converts texts to token ids and back. Id 0 is reserved (CTC blank, padding, end of sentence)."""

    blank = 0

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of ids, including the reserved id 0."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text. ValueError names a character that has no id."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids; reserved ids are skipped."""

    def unwritable(self, text: str) -> list[str]:
        """What of a text has no id, characters or words; empty for a text that ``encode`` takes."""
        if not self._refuses(text):
            return []
        text = normalize(text)
        return sorted(character for character in set(text) if self._refuses(character)) or [text]

    def _refuses(self, text: str) -> bool:
        try:
            self.encode(text)
        except ValueError:
            return True
        return False

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The piece of text that each token writes, spaces included; the joined pieces are the text. Used for word times."""
        return [self.decode([token]) for token in tokens]

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        """The tokens of a batch of texts. Shape: B texts -> tokens (B, U), token_lengths (B,)."""
        sequences = [torch.tensor(self.encode(text), dtype=torch.long) for text in texts]
        return TokenTargets(
            tokens=torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
            token_lengths=torch.tensor([len(sequence) for sequence in sequences]),
        )


class CharacterTokenizer(Tokenizer):
    """One id for each character, in the given order, starting at 1."""

    def __init__(self, characters: str = LIBRISPEECH_CHARACTERS) -> None:
        if not characters or len(set(characters)) != len(characters):
            raise ValueError(f"characters must be distinct and at least one, got {characters!r}")
        self.characters = characters
        self._ids = {character: index for index, character in enumerate(characters, start=1)}

    @property
    def size(self) -> int:
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        text = normalize(text)
        if unknown := self.unwritable(text):
            raise ValueError(f"text {text!r} has {unknown}, which the alphabet {self.characters!r} cannot write")
        return [self._ids[character] for character in text]

    def unwritable(self, text: str) -> list[str]:
        return sorted(set(normalize(text)) - self._ids.keys())

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.characters[token - 1] for token in tokens if token != self.blank)

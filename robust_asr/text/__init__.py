"""Text: the one normalisation used by training, metrics and attacks, and the tokenizers."""

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

    Nothing is dropped: a character that a recogniser cannot write is that recogniser's error to report.
    """
    # Composed again after upper(), which takes some characters apart and makes an apostrophe of one.
    upper = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).upper())
    return " ".join(upper.translate(_APOSTROPHES).split())


class Tokenizer(ABC):
    """Texts to token ids and back. Id 0 is reserved (CTC blank, padding, end of sentence)."""

    blank = 0

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of ids, the reserved one included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text. ValueError names a character that has none."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Text of ids; reserved ids are skipped."""

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """What each token writes, spaces included: joined, they are the text. For word times."""
        return [self.decode([token]) for token in tokens]

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        """Shape: B texts -> tokens (B, U), token_lengths (B,)."""
        sequences = [torch.tensor(self.encode(text), dtype=torch.long) for text in texts]
        return TokenTargets(
            tokens=torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
            token_lengths=torch.tensor([len(sequence) for sequence in sequences]),
        )


class CharacterTokenizer(Tokenizer):
    """One id a character, in the order given, from 1."""

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
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            raise ValueError(f"text {text!r} has {unknown}, which the alphabet {self.characters!r} cannot write")
        return [self._ids[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.characters[token - 1] for token in tokens if token != self.blank)

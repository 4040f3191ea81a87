"""The phones of American English (ARPAbet), as labels of a recogniser."""

from __future__ import annotations

VOWELS = tuple("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
CONSONANTS = tuple("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
SILENCE, NOISE = "SIL", "SPN"


def labels(*, stress: bool) -> tuple[str, ...]:
    """The names of the labels: the blank, silence, spoken noise, then 39 phones, or 69 if vowels keep their stress."""
    vowels = tuple(vowel + digit for vowel in VOWELS for digit in "012") if stress else VOWELS
    return ("<blank>", SILENCE, NOISE, *sorted((*vowels, *CONSONANTS)))

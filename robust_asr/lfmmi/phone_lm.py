"""The phone bigram of the denominator, estimated from texts.

Legend: V labels. Label 0, the blank of the recogniser, stands for the start before a sentence and for the end after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from robust_asr.lfmmi.lexicon import Lexicon, Pronunciations
from robust_asr.text import normalize

_SILENCE_SHARE = 0.5


def estimate_bigram(texts: Iterable[str], lexicon: Lexicon, *, discount: float = 0.75) -> Tensor:
    """Log-probabilities of each label after each label, interpolated Kneser-Ney (Chen and Goodman 1999, section 2.7).

    Silence occurs between words, before the first word and after the last word with probability 1/2 each, and all pronunciations
    of a word are equally probable. Counts are expected counts under these two assumptions, not counts of random draws, so the
    same texts always give the same bigram. Every probability is positive.

    Shape: (V, V) float32, rows normalised; row 0 holds the labels after the start, column 0 the end.
    Errors: ValueError if there is no text or discount is not in (0, 1).
    """
    if not 0 < discount < 1:
        raise ValueError(f"discount must be between 0 and 1, found {discount}")
    counts = expected_counts(texts, lexicon)
    if not counts.any():
        raise ValueError("a phone bigram needs at least one text")
    # The lower-order distribution: a label's probability is proportional to the number of different labels that it follows. One
    # is added to each number, so that a label that never occurs keeps a positive probability.
    followed = (counts > 0).sum(0).double() + 1
    backoff = followed / followed.sum()
    totals = counts.sum(1, keepdim=True)
    saved = counts.clamp(max=discount).sum(1, keepdim=True)
    seen = ((counts - discount).clamp(min=0) + saved * backoff) / totals.clamp(min=1e-300)
    return torch.where(totals > 0, seen, backoff).log().float()


def expected_counts(texts: Iterable[str], lexicon: Lexicon) -> Tensor:
    """The expected count of each label after each label. Shape: (V, V) float64."""
    neighbours: Counter[tuple[str, str]] = Counter()
    for text in texts:
        # The empty string marks the start and the end of a text, as no word is empty.
        words = ["", *normalize(text).split(), ""]
        neighbours.update(pairwise(words))
    words: Counter[str] = Counter()
    for (before, _), count in neighbours.items():
        words[before] += count
    pronunciations = lexicon.pronunciations(word for word in words if word)
    # A list of lists, because a million additions to single elements of a tensor would take ten times as long.
    counts = [[0.0] * lexicon.size for _ in range(lexicon.size)]
    for word, variants in pronunciations.items():
        for phones in variants:
            for before, after in pairwise(phones):
                counts[before][after] += words[word] / len(variants)
    first, last = (_ends(pronunciations, place) for place in (0, -1))
    for (before, after), count in neighbours.items():
        _join(counts, last[before], first[after], count, lexicon.silence)
    return torch.tensor(counts, dtype=torch.float64)


def _ends(pronunciations: dict[str, Pronunciations], place: int) -> dict[str, dict[int, float]]:
    """The share of each phone at one end of each word (``place`` 0 or -1); the empty string has label 0 at both ends."""
    shares: dict[str, dict[int, float]] = {"": {0: 1.0}}
    for word, variants in pronunciations.items():
        ends = Counter(phones[place] for phones in variants)
        shares[word] = {phone: count / len(variants) for phone, count in ends.items()}
    return shares


def _join(
    counts: list[list[float]], before: dict[int, float], after: dict[int, float], count: int, silence: int
) -> None:
    quiet = count * _SILENCE_SHARE
    for phone, share in before.items():
        counts[phone][silence] += quiet * share
        for following, following_share in after.items():
            counts[phone][following] += (count - quiet) * share * following_share
    for following, share in after.items():
        counts[silence][following] += quiet * share

"""N-grams with back-off, read from ARPA files and asked for many histories at once.

Legend: S states (histories that matter), A listed n-grams, W words, Q questions.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
from torch import Tensor

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
# Decades, of an unknown word where the file does not say: as KenLM has it.
_UNHEARD = -100.0
# Of a word's number, below that of its history.
_BITS = 32
_BINARIES = (b"mmap lm http://kheafield.com/code", b"blzmmap")


@dataclass(frozen=True)
class NGram:
    """Log10 probabilities of words after histories. State 0 is the empty history; longer ones have higher numbers.

    Shape: keys, scores, following (A,): state times number of words plus word, sorted; log10 probability; the state after it.
    back_offs, shorter (S,): log10 weight of a history after which the word is not listed, and the state without its oldest
    word. starts: the first state of each length, and S.
    """

    vocabulary: dict[str, int]
    starts: tuple[int, ...]
    keys: Tensor
    scores: Tensor
    following: Tensor
    back_offs: Tensor
    shorter: Tensor

    @property
    def begin(self) -> int:
        """The state at the beginning of a sentence."""
        return int(self.following[torch.searchsorted(self.keys, self.vocabulary[BEGIN])])

    def numbers(self, words: Sequence[str]) -> Tensor:
        """What the model calls each word: unknown ones all the same."""
        unknown = self.vocabulary[UNKNOWN]
        return torch.tensor([self.vocabulary.get(word, unknown) for word in words], device=self.keys.device)

    def __call__(self, states: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Log10 probabilities and the states after the words. Shape: (Q,), (Q,) -> (Q,), (Q,)."""
        total = torch.zeros(states.shape, dtype=self.scores.dtype, device=states.device)
        following, missing = torch.zeros_like(states), torch.ones_like(states, dtype=torch.bool)
        for _ in self.starts[1:]:
            wanted = states * len(self.vocabulary) + words
            places = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
            found = missing & (self.keys[places] == wanted)
            total = torch.where(found, total + self.scores[places], total)
            following = torch.where(found, self.following[places], following)
            missing = missing & ~found
            total = torch.where(missing, total + self.back_offs[states], total)
            states = self.shorter[states]
        return total, following

    def table(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """The same for all states at once, of distinct words. Shape: (W,) -> (S, W), (S, W)."""
        size = len(self.vocabulary)
        columns = torch.full((size,), -1, device=words.device)
        columns[words] = torch.arange(len(words), device=words.device)
        states, columns = self.keys // size, columns[self.keys % size]
        scores = torch.empty(len(self.shorter), len(words), dtype=self.scores.dtype, device=words.device)
        following = torch.zeros(scores.shape, dtype=torch.long, device=words.device)
        for start, end in pairwise(self.starts):
            shorter = self.shorter[start:end]
            if start:
                scores[start:end] = scores[shorter] + self.back_offs[start:end, None]
                following[start:end] = following[shorter]
            listed = (states >= start) & (states < end) & (columns >= 0)
            scores[states[listed], columns[listed]] = self.scores[listed]
            following[states[listed], columns[listed]] = self.following[listed]
        return scores, following

    def to(self, device: torch.device) -> NGram:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})


class WordScores:
    """An n-gram asked for the words that a search can write, by their numbers in the search."""

    # Of histories times words: up to here all answers are computed at once, which is many times as fast to ask.
    largest_table = 2**22

    def __init__(self, ngram: NGram, words: Sequence[str]) -> None:
        self.begin = ngram.begin
        self._ngram, self._numbers = ngram, ngram.numbers(words)
        self._end = ngram.numbers([END])
        distinct, self._columns = self._numbers.unique(return_inverse=True)
        self._table: tuple[Tensor, Tensor] | None = None
        self._width = len(distinct)
        if len(ngram.shorter) * self._width <= self.largest_table:
            scores, following = ngram.table(distinct)
            self._table = (scores.flatten(), following.flatten())

    def __call__(self, states: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Log10 probabilities and the states after the words. Shape: (Q,), (Q,) -> (Q,), (Q,)."""
        if self._table is None:
            return self._ngram(states, self._numbers[words])
        scores, following = self._table
        places = states * self._width + self._columns[words]
        return scores[places], following[places]

    def ends(self, states: Tensor) -> Tensor:
        """Log10 probability that the sentence ends here. Shape: (B, K) -> (B, K)."""
        flat = states.flatten()
        return self._ngram(flat, self._end.expand_as(flat))[0].view_as(states)


def read_arpa(path: str) -> NGram:
    """The model of an ARPA file, compressed with gzip or not, of order 1 or more.

    Errors: ValueError names the line that is malformed, or says that a file is a KenLM binary.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(_BINARIES):
        raise ValueError(f"ngram {path} is a KenLM binary, which is not read: give the ARPA file it was made from")
    opened = gzip.open if start.startswith(b"\x1f\x8b") else open
    builder, sections, number = _Builder(), _Sections(), 0
    try:
        with opened(path, "rb") as lines:
            for line in lines:
                number += 1
                entry = sections.entry(line.decode().strip())
                if entry is not None:
                    builder.add(*entry)
        sections.finish()
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"ngram {path} cannot be read: line {number}: {error}") from error
    return builder.model()


class _Sections:
    """Where in the file a line stands, and what it may say there."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.order: int | None = None
        self.left = 0
        self.ended = False

    def entry(self, line: str) -> tuple[list[str], float, float] | None:
        """The words, log10 probability and back-off of a line that holds an n-gram."""
        if not line or self.ended:
            return None
        if self.order is None:
            if line == "\\data\\":
                self.order = 0
            return None
        if line.startswith("\\"):
            self._next(line)
            return None
        if self.order == 0:
            self._count(line)
            return None
        return self._ngram(line)

    def finish(self) -> None:
        if self.order is None:
            raise ValueError("no line \\data\\, with which an ARPA file begins, up to the end")
        if not self.ended:
            raise ValueError("no line \\end\\, with which an ARPA file ends")

    def _count(self, line: str) -> None:
        name, _, count = line.partition("=")
        if name.split() != ["ngram", str(len(self.counts) + 1)] or not count.strip().isdecimal():
            raise ValueError(f"{line!r} is not of the form 'ngram {len(self.counts) + 1}=COUNT'")
        self.counts.append(int(count))

    def _next(self, line: str) -> None:
        if self.left:
            raise ValueError(f"{line!r}, but {self.left} more {self.order}-grams were announced")
        wanted = "\\end\\" if self.order == len(self.counts) else f"\\{self.order + 1}-grams:"
        if not self.counts or line != wanted:
            raise ValueError(f"{line!r} where {wanted!r} is due" if self.counts else "no n-gram is announced")
        self.ended = line == "\\end\\"
        if not self.ended:
            self.left = self.counts[self.order]
            self.order += 1

    def _ngram(self, line: str) -> tuple[list[str], float, float]:
        score, *words = line.split()
        back_off = 0.0
        if len(words) == self.order + 1 and self.order < len(self.counts):
            back_off = _decades(words.pop())
        if len(words) != self.order:
            form = "a log10 probability, the words and, below the highest order, perhaps a back-off weight"
            raise ValueError(f"{line!r} is no {self.order}-gram: {form}")
        if not self.left:
            raise ValueError(f"more {self.order}-grams than the {self.counts[self.order - 1]} that were announced")
        self.left -= 1
        return words, _decades(score), back_off


def _decades(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    # Minus infinity is what some write for what never happens; as a back-off it would make nan of what does.
    if math.isnan(value) or value == math.inf:
        raise ValueError(f"{text!r} is not a log10 probability or weight")
    return value if math.isfinite(value) else _UNHEARD


class _Builder:
    """N-grams, shorter ones first. Each is numbered and may be the history of longer ones."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        # Of the number of an n-gram's words but the last, and its last word: its own.
        self.numbers: dict[int, int] = {}
        self.scores = [0.0]
        self.back_offs = [0.0]
        self.starts = [0]

    def add(self, words: list[str], score: float, back_off: float) -> None:
        if len(words) == len(self.starts):
            self.starts.append(len(self.scores))
        if len(words) == 1:
            self.vocabulary.setdefault(words[0], len(self.vocabulary))
        history = 0
        for word in words[:-1]:
            history = self.numbers.get(self._key(history, word), -1)
            if history < 0:
                raise ValueError(f"{' '.join(words)!r} without its history, which is no listed {len(words) - 1}-gram")
        key = self._key(history, words[-1])
        if key in self.numbers:
            raise ValueError(f"{' '.join(words)!r} is listed twice")
        self.numbers[key] = len(self.scores)
        self.scores.append(score)
        self.back_offs.append(back_off)

    def _key(self, history: int, word: str) -> int:
        if word not in self.vocabulary:
            raise ValueError(f"{word!r} is not among the 1-grams")
        return history << _BITS | self.vocabulary[word]

    def model(self) -> NGram:
        shorter = [0] * len(self.scores)
        for key, number in self.numbers.items():
            history, word = key >> _BITS, key & ((1 << _BITS) - 1)
            if history:
                shorter[number] = self._longest(shorter, shorter[history], word)
        keys, numbers = list(self.numbers), list(self.numbers.values())
        scores = [self.scores[number] for number in numbers]
        for word in (UNKNOWN, BEGIN, END):
            if word not in self.vocabulary:
                self.vocabulary[word] = len(self.vocabulary)
                keys.append(self.vocabulary[word])
                numbers.append(0)
                scores.append(_UNHEARD)
        # No n-gram is longer than the longest: after one of these, its newest words are all that matters.
        num_states = self.starts[-1]
        following = torch.tensor(numbers)
        following = torch.where(following < num_states, following, torch.tensor(shorter)[following])
        packed = torch.tensor(keys)
        packed = (packed >> _BITS) * len(self.vocabulary) + (packed & ((1 << _BITS) - 1))
        order = packed.argsort()
        return NGram(
            vocabulary=self.vocabulary,
            starts=tuple(self.starts),
            keys=packed[order],
            scores=torch.tensor(scores, dtype=torch.float64)[order],
            following=following[order],
            back_offs=torch.tensor(self.back_offs[:num_states], dtype=torch.float64),
            shorter=torch.tensor(shorter[:num_states]),
        )

    def _longest(self, shorter: list[int], history: int, word: int) -> int:
        """The longest listed n-gram that is the end of this history and then the word."""
        while (history << _BITS | word) not in self.numbers:
            history = shorter[history]
        return self.numbers[history << _BITS | word]

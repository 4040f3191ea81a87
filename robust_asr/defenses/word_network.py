"""Word transition network: transcripts of one utterance aligned to each other, as NIST's ROVER does (Fiscus 1997).

Legend: J words of a transcript, S sets of a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# Costs of NIST's alignment, single precision. A NULL arc stands for a transcript that has no word there.
_OTHER, _OTHER_THAN_NULL, _DELETED, _INSERTED = 4.0, 1.0, 3.0, 3.0
_NULL_DELETED = 0.0010000000474974513
# More than any alignment costs, and the least guess of what one does.
_FAR, _GUESS = 1e9, 10.0
# 2^29 + 1: multiplied by it, a double falls apart into its first 24 bits and the rest (Veltkamp 1968).
_SPLITTER = 536870913.0
_SAME, _DELETE, _INSERT = range(3)
# Of a set: the first place that was computed; for each of its words the last step to each place; which word is cheapest there.
_Table = tuple[int, list[list[int]], list[int]]


@dataclass(frozen=True)
class Arc:
    """A word of one transcript, or NULL. ``key`` is what is compared: the word without case, None for NULL."""

    key: str | None
    word: str = ""
    confidence: float = 0.0


@dataclass
class WordNetwork:
    """Sets of arcs that stand for the same words, one arc of each transcript so far.

    A transcript is aligned to all arcs at once, by dynamic programming over (arc, word). Sums are rounded to single precision, as
    NIST's are: paths of equal cost differ by the rounding of .001, and in double precision 7 % of noisy transcripts would take
    another one. Arcs of a set with the same word have the same costs, so each word is computed once.
    """

    sets: list[list[Arc]] = field(default_factory=list)
    num_transcripts: int = 0
    _guess: float = field(default=_GUESS, repr=False)

    def merge(self, words: Sequence[Arc]) -> None:
        """Align one more transcript and add its arcs."""
        null, merged = Arc(None), []
        for step, number, place in self._aligned([arc.key for arc in words]):
            if step == _INSERT:
                merged.append([words[place], *[null] * self.num_transcripts])
            else:
                merged.append([*self.sets[number], words[place] if step == _SAME else null])
        self.sets = merged
        self.num_transcripts += 1

    def _aligned(self, keys: Sequence[str | None]) -> Iterator[tuple[int, int, int]]:
        """Steps of the cheapest path, each with the numbers of its set and of its word; those that do not count are any number.

        Paths that need more insertions than a guess of the cost allows are left out (Ukkonen 1985); a guess that was too low is
        doubled.
        """
        # As much as the transcript before it cost, or the insertions that it must have.
        self._guess = max(self._guess, _INSERTED * (len(keys) - len(self.sets)) + 1)
        while True:
            cost, path = self._aligned_within(keys, int(self._guess / _INSERTED))
            if cost < self._guess:
                self._guess = max(1.2 * cost, _GUESS)
                return reversed(path)
            self._guess *= 2

    def _aligned_within(self, keys: Sequence[str | None], spare: int) -> tuple[float, list[tuple[int, int, int]]]:
        """The cost and the steps, from the last, of the cheapest path with at most ``spare`` more insertions than it must have.

        Only cells up to that many insertions from the start, and as many from the end, are computed; paths through others have
        more.
        """
        num_words, num_sets = len(keys), len(self.sets)
        costs = [_INSERTED * place if place <= spare else _FAR for place in range(num_words + 1)]
        tables: list[_Table] = []
        for number, arcs in enumerate(self.sets):
            first = max(num_words - (num_sets - number - 1) - spare, 0)
            last = min(number + 1 + spare, num_words)
            words, before = ["", *keys][first : last + 1], [_FAR, *costs][first : last + 2]
            # Words that the transcript lacks here cost the same; the first stands for them.
            known = {None, *words}
            found = [_row(before, key, words) for key in {arc.key if arc.key in known else "": None for arc in arcs}]
            best, cheapest = found[0][0], [0] * (last + 1 - first)
            for other, (row, _) in enumerate(found[1:], 1):
                # The first of equal costs is taken.
                cheapest = [other if new < old else kept for new, old, kept in zip(row, best, cheapest, strict=True)]
                best = [new if new < old else old for new, old in zip(row, best, strict=True)]
            costs = [*[_FAR] * first, *best, *[_FAR] * (num_words - last)]
            tables.append((first, [steps for _, steps in found], cheapest))
        return costs[num_words], _steps_back(tables, num_words)


def _steps_back(tables: Sequence[_Table], place: int) -> list[tuple[int, int, int]]:
    """The steps of a path from its end, the last word: what is left before the first set are insertions."""
    path, number, row = [], len(tables) - 1, None
    while number >= 0:
        first, steps, cheapest = tables[number]
        row = cheapest[place - first] if row is None else row
        step = steps[row][place - first]
        path.append((step, number, place - 1))
        place -= step != _DELETE
        if step != _INSERT:
            number, row = number - 1, None
    return path + [(_INSERT, 0, before) for before in range(place - 1, -1, -1)]


def _row(before: Sequence[float], key: str | None, keys: Sequence[str | None]) -> tuple[list[float], list[int]]:
    """The costs of a word's arc up to some places of the transcript, and the last step of each.

    Shape: before (J + 1,), the costs of the sets before, from one place earlier on; keys (J,), the words that end there
        -> (J,), (J,).
    """
    deleted = _NULL_DELETED if key is None else _DELETED
    other = _OTHER_THAN_NULL if key is None else _OTHER
    last, costs, steps = _FAR, [], []
    for word, straight, above in zip(keys, before, before[1:], strict=False):
        # ``single``, written out: a call would cost more than all the rest.
        same = straight if word == key else straight + other
        large = same * _SPLITTER
        same = large - (large - same)
        delete = above + deleted
        large = delete * _SPLITTER
        delete = large - (large - delete)
        insert = last + _INSERTED
        large = insert * _SPLITTER
        insert = large - (large - insert)
        if same <= delete and same <= insert:
            last, step = same, _SAME
        elif delete < insert:
            last, step = delete, _DELETE
        else:
            last, step = insert, _INSERT
        costs.append(last)
        steps.append(step)
    return costs, steps


def single(value: float) -> float:
    """A double rounded to single precision."""
    large = value * _SPLITTER
    return large - (large - value)

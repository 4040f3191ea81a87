"""ROVER: a vote over transcripts of one utterance, word by word (Fiscus 1997), with NIST's result.

``rover`` gives what the program of NIST's SCTK 2.4.10 gives, which Olivier & Raj 2021 called through files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from robust_asr.defenses.word_network import Arc, WordNetwork, single

Rule = Literal["average", "maximum"]


def rover(
    hypotheses: Sequence[Sequence[str]],
    times: Sequence[Sequence[tuple[float, float]]] | None = None,
    confidences: Sequence[Sequence[float]] | None = None,
    *,
    frequency_weight: float = 1.0,
    rule: Rule = "average",
    null_confidence: float = 0.0,
    min_gap: float = 1.0,
) -> list[str]:
    """The words that most transcripts have, after all are aligned to each other in their order.

    Each word is worth w times its share of the transcripts and 1 - w times its confidence; the best of each set of aligned words
    is written, or nothing where NULL wins. Of equally good words that wins which the earlier transcript has. By default w is 1, so
    that the confidences do not count: the vote of Olivier & Raj 2021. Case is not compared, and kept as the first of the words
    has it. A transcript without words votes for NULL everywhere; the program of NIST breaks on it.

    Args:
        hypotheses: transcripts as words, at least one.
        times: start and end of each word. Where all transcripts have a gap of more than ``min_gap`` in common, they are cut,
            and the pieces are aligned on their own.
        confidences: of each word, in [0, 1]; needed where ``frequency_weight`` is below 1.
        rule: whether a word's confidence is the average over the transcripts that have it, or the largest.

    Units: times and min_gap in one unit of any kind (OR21: frames of 20 ms, and 1 of them).
    Errors: ValueError for no transcript, for times or confidences that are not one for each word, for values out of range.
    """
    _check(hypotheses, times, confidences, frequency_weight=frequency_weight, rule=rule)
    if len(hypotheses) == 1:
        return list(hypotheses[0])
    if confidences is None:
        confidences = [[0.0] * len(words) for words in hypotheses]
    rows = [
        [Arc(word.casefold(), word, single(confidence)) for word, confidence in zip(words, own, strict=True)]
        for words, own in zip(hypotheses, confidences, strict=True)
    ]
    written = []
    for piece in [rows] if times is None else _pieces(rows, times, min_gap):
        network = WordNetwork()
        for words in piece:
            network.merge(words)
        for arcs in network.sets:
            winner = _winner(arcs, frequency_weight=frequency_weight, rule=rule, null_confidence=null_confidence)
            written += [winner.word] if winner.key is not None else []
    return written


def _winner(arcs: Sequence[Arc], *, frequency_weight: float, rule: Rule, null_confidence: float) -> Arc:
    by_key: dict[str | None, list[Arc]] = {}
    for arc in arcs:
        by_key.setdefault(arc.key, []).append(arc)

    def confidences(some: Sequence[Arc]) -> list[float]:
        return [null_confidence if arc.key is None else arc.confidence for arc in some]

    total = sum(confidences(arcs))

    def worth(key: str | None) -> float:
        own = confidences(by_key[key])
        confidence = max(own) if rule == "maximum" else sum(own) / total if total else 0.0
        return frequency_weight * (len(own) / len(arcs)) + (1 - frequency_weight) * confidence

    return by_key[max(by_key, key=worth)][0]


def _pieces(
    rows: Sequence[Sequence[Arc]], times: Sequence[Sequence[tuple[float, float]]], min_gap: float
) -> Iterator[list[Sequence[Arc]]]:
    """The transcripts between the gaps that all of them have."""
    starts = [0] * len(rows)
    while any(start < len(row) for start, row in zip(starts, rows, strict=True)):
        ends = _next_cut(times, starts, min_gap) or [len(row) for row in rows]
        yield [row[start:end] for row, start, end in zip(rows, starts, ends, strict=True)]
        starts = ends


def _next_cut(
    times: Sequence[Sequence[tuple[float, float]]], starts: Sequence[int], min_gap: float
) -> list[int] | None:
    """How many words each transcript has before the first gap of the first one that all others have too; None without one."""
    for first in range(starts[0], len(times[0])):
        gap, ends = _gap_after(times[0], first), [first + 1]
        if gap[1] - gap[0] <= min_gap:
            continue
        for words, start in zip(times[1:], starts[1:], strict=True):
            if start == len(words):
                ends.append(start)
                continue
            common = None
            for place in range(start, len(words)):
                found = _gap_after(words, place)
                common = max(gap[0], found[0]), min(gap[1], found[1])
                if common[1] - common[0] > 0:
                    ends.append(place + 1)
                    break
            else:
                break
            gap = common
        if len(ends) == len(times):
            return ends
    return None


def _gap_after(words: Sequence[tuple[float, float]], place: int) -> tuple[float, float]:
    return words[place][1], words[place + 1][0] if place + 1 < len(words) else math.inf


def _check(
    hypotheses: Sequence[Sequence[str]],
    times: Sequence[Sequence[tuple[float, float]]] | None,
    confidences: Sequence[Sequence[float]] | None,
    *,
    frequency_weight: float,
    rule: Rule,
) -> None:
    if not hypotheses:
        raise ValueError("hypotheses: there is none to vote over")
    if isinstance(hypotheses, str) or any(isinstance(words, str) for words in hypotheses):
        raise ValueError("hypotheses: each is a list of words, found a text; split it")
    if any("" in words for words in hypotheses):
        raise ValueError("hypotheses: a word is empty; leave it out")
    lengths = [len(words) for words in hypotheses]
    for name, given in (("times", times), ("confidences", confidences)):
        if given is not None and [len(row) for row in given] != lengths:
            raise ValueError(
                f"{name}: one is needed for each word, {lengths} words, found {[len(row) for row in given]}"
            )
    if not 0 <= frequency_weight <= 1:
        raise ValueError(f"frequency_weight is {frequency_weight}, accepted is 0 to 1")
    if frequency_weight < 1 and confidences is None:
        raise ValueError(f"frequency_weight is {frequency_weight}, below 1, which needs confidences")
    if rule not in get_args(Rule):
        raise ValueError(f"rule is {rule!r}, accepted are {' and '.join(get_args(Rule))}")

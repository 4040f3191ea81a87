"""An automaton with all phone sequences of a text, each exactly once: pronunciation variants and optional silence.

Legend: S places in a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PhoneGraph:
    """A deterministic acyclic automaton: node 0 is the start, every other node is entered with one phone.

    ``edges`` are pairs of nodes; a text may end in the ``accepting`` nodes. ``frames_needed`` is the number of frames of the
    shortest sequence, with a blank between equal phones.
    """

    phones: list[int]
    edges: list[tuple[int, int]]
    accepting: list[int]
    frames_needed: int


def phone_graph(words: Sequence[Sequence[tuple[int, ...]]], *, silence: int) -> PhoneGraph:
    """The automaton of all pronunciations of the words, with or without silence before, between and after the words.

    Different variants of neighbouring words can give the same phone sequence. If such a sequence had two paths, it would weigh
    twice as much as in the denominator, which does not know words. Therefore the automaton is made deterministic (Rabin and
    Scott 1959): its nodes are sets of places in the text, and each sequence has exactly one path.

    Args:
        words: the pronunciations of each word; a pronunciation has one phone or more.
    """
    phone_at, following, last = _places(words, silence)
    numbers, edges, order = {(0,): 0}, [], [(0,)]
    for node in order:
        reached: dict[int, list[int]] = {}
        for place in sorted({after for before in node for after in following[before]}):
            reached.setdefault(phone_at[place], []).append(place)
        for places in map(tuple, reached.values()):
            if places not in numbers:
                numbers[places] = len(order)
                order.append(places)
            edges.append((numbers[node], numbers[places]))
    phones = [phone_at[node[0]] for node in order]
    accepting = [number for number, node in enumerate(order) if not last.isdisjoint(node)]
    # Every edge leads to later places, so sorting by a node's first place puts the edges into a node before the edges out of it.
    edges.sort(key=lambda edge: order[edge[0]][0])
    return PhoneGraph(phones, edges, accepting, _frames_needed(phones, edges, accepting))


def _places(words: Sequence[Sequence[tuple[int, ...]]], silence: int) -> tuple[list[int], list[list[int]], set[int]]:
    """The phone at each place of the text, the places that may follow each place, and the places where the text may end.

    Place 0 is the start. Shape: S phones, S lists of places.
    """
    phone_at, following, ends = [0], [[]], [0]

    def place(phone: int, after: Sequence[int]) -> int:
        phone_at.append(phone)
        following.append([])
        for before in after:
            following[before].append(len(phone_at) - 1)
        return len(phone_at) - 1

    for word in words:
        before_word = [*ends, place(silence, ends)]
        ends = []
        for pronunciation in word:
            here = before_word
            for phone in pronunciation:
                here = [place(phone, here)]
            ends += here
    return phone_at, following, {*ends, place(silence, ends)}


def _frames_needed(phones: list[int], edges: list[tuple[int, int]], accepting: list[int]) -> int:
    needed: dict[int, int] = {0: 0}
    for before, after in edges:
        frames = needed[before] + 1 + (phones[before] == phones[after])
        needed[after] = min(needed.get(after, frames), frames)
    return min(needed[node] for node in accepting)

from __future__ import annotations

import pytest
import torch

from robust_asr.lfmmi.automaton import PhoneGraph, phone_graph
from robust_asr.lfmmi.graphs import batched
from tests.robust_asr.lfmmi.enumeration import SILENCE, sequences

A, B, C = 2, 3, 4
WORDS = {
    "no word": [],
    "one": [[(A, B)]],
    "two pronunciations": [[(A, B), (A, C)], [(B,)]],
    # A | B C and A B | C are the same phones, and must be counted once.
    "one sequence, two readings": [[(A,), (A, B)], [(B, C), (C,)]],
    "nothing but repeats": [[(A,), (A, A)], [(A,)], [(A, A), (A,)]],
    "silence that is said": [[(SILENCE,), (A,)], [(B,)]],
}


def _paths(graph: PhoneGraph) -> list[tuple[int, ...]]:
    found, open_paths = [], [(0, ())]
    for node, phones in open_paths:
        found += [phones] if node in graph.accepting else []
        open_paths += [(after, (*phones, graph.phones[after])) for before, after in graph.edges if before == node]
    return found


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_every_sequence_is_one_path(words: list):
    paths = _paths(phone_graph(words, silence=SILENCE))
    assert len(paths) == len(set(paths))
    assert set(paths) == sequences(words)


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_frames_needed_are_those_of_the_shortest(words: list):
    costs = [len(phones) + sum(map(int.__eq__, phones, phones[1:])) for phones in sequences(words)]
    assert phone_graph(words, silence=SILENCE).frames_needed == min(costs)


def test_select_trims_and_repeat_repeats():
    graphs = batched([phone_graph(words, silence=SILENCE) for words in WORDS.values()], num_labels=5)
    assert len(graphs) == len(WORDS)
    one = graphs.select(torch.tensor([1]))
    alone = batched([phone_graph(WORDS["one"], silence=SILENCE)], num_labels=5)
    assert torch.equal(one.labels, alone.labels) and torch.equal(one.ends, alone.ends)
    twice = graphs.repeat(2)
    assert torch.equal(twice.labels[::2], twice.labels[1::2]) and torch.equal(twice.codes[::2], graphs.codes)
    assert len(graphs.select(torch.tensor([], dtype=torch.long))) == 0

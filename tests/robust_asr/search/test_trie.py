from __future__ import annotations

import torch

from robust_asr.search.trie import ROOT, Trie, trie_of

# Two ways to say word 0; word 2 begins as word 1 does and sounds like word 3.
SPELLINGS = [((1, 2), 0), ((3,), 0), ((1, 1), 1), ((1, 1, 2), 2), ((1, 1, 2), 3)]
SILENCE = 4


def spelled(trie: Trie, node: int = ROOT, before: tuple[int, ...] = ()) -> set[tuple[tuple[int, ...], int]]:
    """All words by walking every edge."""
    found = set()
    for edge in trie.edges(torch.tensor([[node]])).flatten().tolist():
        label, target, word = (int(values[edge]) for values in (trie.labels, trie.targets, trie.words))
        if word >= 0:
            assert target == ROOT
            found.add(((*before, label), word))
        elif target != ROOT:
            found |= spelled(trie, target, (*before, label))
    return found


def test_every_spelling_is_a_path_and_no_other() -> None:
    assert spelled(trie_of(SPELLINGS, loops=[SILENCE])) == set(SPELLINGS)


def test_edges_are_in_one_order_and_padded() -> None:
    trie = trie_of(SPELLINGS, loops=[SILENCE])
    root, below = trie.edges(torch.tensor([[ROOT, 1]]))[0]
    assert trie.labels[root].tolist() == [1, 3, SILENCE] and trie.words[root].tolist() == [-1, 0, -1]
    assert trie.labels[below].tolist() == [1, 1, 2] and trie.words[below].tolist() == [-1, 1, 0]
    (last,) = trie.edges(torch.tensor([[2]]))[0]
    assert trie.words[last].tolist() == [2, 3, -1] and trie.labels[last].tolist() == [2, 2, 0], "the blank: nowhere"


def test_the_best_word_below_each_node() -> None:
    trie = trie_of(SPELLINGS, loops=[SILENCE])
    assert trie.ahead(torch.tensor([-5.0, -3.0, -2.0, -4.0])).tolist() == [0.0, -2.0, -2.0]
    assert trie.ahead(torch.tensor([-1.0, -3.0, -9.0, -4.0])).tolist() == [0.0, -1.0, -4.0]


def test_without_a_lexicon_there_is_only_a_root() -> None:
    trie = trie_of([((label,), label - 1) for label in range(1, 4)])
    assert trie.flat and trie.ahead(torch.zeros(3)).tolist() == [0.0]

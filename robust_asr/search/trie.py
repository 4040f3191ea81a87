"""Words as paths of labels, in arrays that a whole beam reads at once.

Legend: N nodes, E edges, B utterances, K hypotheses, C candidates a hypothesis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

ROOT = 0


@dataclass(frozen=True)
class Trie:
    """What may be written after what. Node 0 is the root; an edge that ends a word leads back to it.

    Shape: first, degrees, parents (N,): where a node's edges begin, how many it has, the node above; labels, targets and
    words (E + 1,): what an edge writes, where it leads, and the word that it ends (-1: none). The last edge leads nowhere:
    its label is the blank, which no word is written with.
    """

    first: Tensor
    degrees: Tensor
    parents: Tensor
    labels: Tensor
    targets: Tensor
    words: Tensor

    @cached_property
    def _steps(self) -> Tensor:
        return torch.arange(int(self.degrees.max()), device=self.first.device)

    def edges(self, nodes: Tensor) -> Tensor:
        """All edges of each node, padded with the one that leads nowhere. Shape: (B, K) -> (B, K, C)."""
        edges = self.first[nodes][..., None] + self._steps
        return edges.where(self._steps < self.degrees[nodes][..., None], len(self.labels) - 1)

    @property
    def flat(self) -> bool:
        """Whether there is nothing but the root."""
        return len(self.first) == 1

    def ahead(self, values: Tensor) -> Tensor:
        """The best value among the words below each node. Shape: one value a word -> (N,); the root's is 0."""
        best = torch.full_like(self.first, -torch.inf, dtype=values.dtype)
        ends = self.words >= 0
        sources = torch.repeat_interleave(torch.arange(len(self.first), device=values.device), self.degrees)
        best.scatter_reduce_(0, sources[ends[:-1]], values[self.words[ends]], "amax")
        depths = self._depths()
        for depth in range(int(depths.max()), 1, -1):
            nodes = (depths == depth).nonzero()[:, 0]
            best.scatter_reduce_(0, self.parents[nodes], best[nodes], "amax")
        best[ROOT] = 0.0
        return best

    def to(self, device: torch.device) -> Trie:
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def _depths(self) -> Tensor:
        depths, above = torch.zeros_like(self.parents), self.parents.clone()
        nodes = torch.arange(len(above), device=above.device)
        while bool((nodes != ROOT).any()):
            depths += nodes != ROOT
            nodes = self.parents[nodes]
        return depths


def trie_of(spellings: Iterable[tuple[Sequence[int], int]], *, loops: Sequence[int] = (), blank: int = 0) -> Trie:
    """From the labels of words and their numbers. ``loops`` are labels that lead from the root to the root and write no word.

    A word is written with its last label. Edges of a node are in the order of labels, those that go on before those that
    end a word, these in the order of the words' numbers.
    """
    children: dict[tuple[int, int], int] = {}
    parents = [ROOT]
    edges: dict[int, set[tuple[int, int, int]]] = defaultdict(set)
    edges[ROOT].update((label, -1, ROOT) for label in loops)
    for labels, word in spellings:
        node = ROOT
        for label in labels[:-1]:
            child = children.setdefault((node, label), len(parents))
            if child == len(parents):
                parents.append(node)
                edges[node].add((label, -1, child))
            node = child
        edges[node].add((labels[-1], word, ROOT))
    rows = [sorted(edges[node]) for node in range(len(parents))]
    degrees = torch.tensor([len(row) for row in rows])
    flat = torch.tensor([edge for row in rows for edge in row] + [(blank, -1, ROOT)])
    labels, words, targets = flat.unbind(1)
    return Trie(
        first=degrees.cumsum(0) - degrees,
        degrees=degrees,
        parents=torch.tensor(parents),
        labels=labels.contiguous(),
        targets=targets.contiguous(),
        words=words.contiguous(),
    )

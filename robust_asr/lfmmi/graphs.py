"""The automata of a batch of texts, as tables of a hidden Markov model.

Legend: B utterances, V labels (blank 0, then phones), S states, K arcs into or out of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robust_asr.lfmmi.automaton import PhoneGraph


@dataclass(frozen=True)
class PhoneGraphs:
    """The graphs of a batch as a hidden Markov model, over whose paths ``numerator`` sums. Fulfils ``Targets``.

    The states are the blank after each node, then each node's phone. The tables hold two directions: 0 is forwards in time (the
    predecessors of each state), 1 is backwards (the successors). A code names the weight of an arc: before * V + after in the
    flattened bigram, V * V for probability 1, V * V + 1 for probability 0, which also pads the tables.

    Shape: labels (B, S); sources and codes (B, 2, K, S); ends (B, 2, S) codes of the first and the last step; num_states and
        frames_needed (B,). All int64.
    """

    labels: Tensor
    sources: Tensor
    codes: Tensor
    ends: Tensor
    num_states: Tensor
    frames_needed: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> PhoneGraphs:
        rows = indices.to(self.labels.device)
        size = int(self.num_states[rows].max()) if len(rows) else 0
        return PhoneGraphs(
            labels=self.labels[rows, :size],
            sources=self.sources[rows, ..., :size],
            codes=self.codes[rows, ..., :size],
            ends=self.ends[rows, :, :size],
            num_states=self.num_states[rows],
            frames_needed=self.frames_needed[rows],
        )

    def repeat(self, num: int) -> PhoneGraphs:
        return PhoneGraphs(*(getattr(self, field.name).repeat_interleave(num, 0) for field in fields(self)))

    def to(self, device: torch.device) -> PhoneGraphs:
        if self.labels.device == device:
            return self
        return PhoneGraphs(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def batched(graphs: Sequence[PhoneGraph], *, num_labels: int) -> PhoneGraphs:
    """Build the tables of the graphs of a batch."""
    impossible = num_labels**2 + 1
    arcs = [_arcs(graph, num_labels) for graph in graphs]
    num_states = torch.tensor([2 * len(graph.phones) - 1 for graph in graphs], dtype=torch.long)
    size = int(num_states.max()) if len(graphs) else 0
    labels = torch.zeros(len(graphs), size, dtype=torch.long)
    ends = torch.full((len(graphs), 2, size), impossible)
    for row, (graph, (into, out, codes)) in enumerate(zip(graphs, arcs, strict=True)):
        phones, nodes = torch.tensor(graph.phones), len(graph.phones)
        labels[row, nodes : 2 * nodes - 1] = phones[1:]
        # State 0 is the blank before the first phone. A path begins with any arc out of state 0, including the arc to itself.
        ends[row, 0, into[out == 0]] = codes[out == 0]
        accepting = torch.tensor(graph.accepting)
        last = torch.cat([accepting, accepting[accepting > 0] + nodes - 1])
        ends[row, 1, last] = num_labels * phones[torch.where(last < nodes, last, last - nodes + 1)]
    sources, codes = _tables(arcs, size=size, impossible=impossible)
    frames_needed = torch.tensor([graph.frames_needed for graph in graphs], dtype=torch.long)
    return PhoneGraphs(labels, sources, codes, ends, num_states, frames_needed)


def _arcs(graph: PhoneGraph, num_labels: int) -> Tensor:
    """The arcs between states: the state that an arc enters, the state that it leaves, its code. Shape: (3, number of arcs)."""
    phones = torch.tensor(graph.phones)
    num_nodes, certain = len(phones), num_labels**2
    nodes = torch.arange(num_nodes)
    spoken = nodes[1:] + num_nodes - 1
    stays = [(nodes, nodes), (spoken, spoken), (nodes[1:], spoken)]
    before, after = torch.tensor(graph.edges).reshape(-1, 2).T
    codes = phones[before] * num_labels + phones[after]
    # Between two equal phones, and after the start, the only way leads through the blank.
    direct = (phones[before] != phones[after]) & (before > 0)
    parts = [torch.stack([into, out, torch.full_like(into, certain)]) for into, out in stays]
    parts.append(torch.stack([after + num_nodes - 1, before, codes]))
    parts.append(torch.stack([after + num_nodes - 1, before + num_nodes - 1, codes])[:, direct])
    return torch.cat(parts, 1)


def _tables(arcs: Sequence[Tensor], *, size: int, impossible: int) -> tuple[Tensor, Tensor]:
    """Sort arcs into the tables of both directions. Shape: (B, 2, K, S) sources, (B, 2, K, S) codes."""
    rows = torch.tensor([part.shape[1] for part in arcs], dtype=torch.long)
    rows = torch.arange(len(arcs)).repeat_interleave(rows)
    into, out, code = torch.cat([torch.zeros(3, 0, dtype=torch.long), *arcs], 1)
    filled = []
    for state, source in ((into, out), (out, into)):
        cell = rows * size + state
        order = cell.argsort(stable=True)
        counts = torch.bincount(cell, minlength=len(arcs) * size)
        slot = torch.arange(len(order)) - (counts.cumsum(0) - counts)[cell[order]]
        filled.append((slot, cell[order], source[order], code[order]))
    width = max((int(slot.max()) + 1 for slot, *_ in filled if len(slot)), default=1)
    sources = torch.zeros(2, width, len(arcs) * size, dtype=torch.long)
    codes = torch.full_like(sources, impossible)
    for direction, (slot, cell, source, code) in enumerate(filled):
        sources[direction, slot, cell], codes[direction, slot, cell] = source, code
    sources, codes = (
        table.unflatten(2, (len(arcs), size)).permute(2, 0, 1, 3).contiguous() for table in (sources, codes)
    )
    return sources, codes

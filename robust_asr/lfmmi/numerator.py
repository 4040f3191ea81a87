"""The numerator: the probability mass of the phone sequences of a text.

Legend: B utterances, F frames, V labels, S states, K arcs into or out of a state.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.lfmmi.graphs import PhoneGraphs
from robust_asr.lfmmi.partition import WithOccupancies, both_ways, last_frame, num_directions, turned_back
from robust_asr.masking import masked


def numerator(log_probs: Tensor, frame_lengths: Tensor, graphs: PhoneGraphs, log_bigram: Tensor) -> Tensor:
    """Log of the sum over a text's phone sequences of their bigram probability times the probability of their CTC alignments.

    The result is minus infinity, with zero gradient, if there are too few frames for the shortest sequence. It is computed in
    logarithms and float64, because a state with a tiny probability at one frame may lead to the only paths that reach the end,
    above all for a text that was not spoken.

    Shape: log_probs (B, F, V), frame_lengths (B,) from 1, log_bigram (V, V) -> (B,).
    Units: nats. The gradient in log_probs is the occupancy of each label.
    """
    directions = num_directions(log_probs)
    with torch.no_grad():
        value, occupancies = _forward_backward(
            log_probs.detach().double(), frame_lengths, graphs.to(log_probs.device), log_bigram, directions
        )
    return WithOccupancies.apply(log_probs, value, occupancies)


def _forward_backward(
    log_probs: Tensor, frame_lengths: Tensor, graphs: PhoneGraphs, log_bigram: Tensor, directions: int
) -> tuple[Tensor, Tensor | None]:
    weights = functional.pad(log_bigram.double().flatten(), (0, 2))
    weights[-1] = -torch.inf
    labels = graphs.labels[:, None].expand(-1, log_probs.shape[1], -1)
    emissions = log_probs.gather(2, labels)
    first, last = weights[graphs.ends].unbind(1)
    entered = _recursion(
        both_ways(emissions, frame_lengths)[:directions],
        graphs.sources.transpose(0, 1)[:directions],
        weights[graphs.codes].transpose(0, 1)[:directions],
        torch.stack([first, last])[:directions],
    )
    states = entered[0] + emissions
    value = (last_frame(states, frame_lengths) + last).logsumexp(-1)
    if directions == 1:
        return value, None
    states = states + turned_back(entered[1], frame_lengths) - value[:, None, None]
    states = masked(states.exp(), frame_lengths).masked_fill(~value.isfinite()[:, None, None], 0)
    return value, torch.zeros_like(log_probs).scatter_add_(2, labels, states)


def _recursion(emissions: Tensor, sources: Tensor, weights: Tensor, first: Tensor) -> Tensor:
    """The log-weight of entering each state at each frame.

    Shape: one or two directions, emissions (2, B, F, S), sources and weights (2, B, K, S), first (2, B, S) -> (2, B, F, S).
    """
    entered, current = torch.empty_like(emissions), first
    flat = sources.flatten(2)
    for frame in range(emissions.shape[2]):
        if frame:
            before = (current + emissions[:, :, frame - 1]).gather(2, flat).view_as(weights)
            current = (before + weights).logsumexp(2)
        entered[:, :, frame] = current
    return entered

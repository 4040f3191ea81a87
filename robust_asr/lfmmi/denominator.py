"""The denominator: the probability mass of every phone sequence, weighted by a bigram.

Legend: B utterances, F frames, P phones, V = P + 1 labels (blank 0, then phones), S = V + P states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.lfmmi.partition import WithOccupancies, both_ways, last_frame, num_directions, turned_back
from robust_asr.masking import masked


def denominator(log_probs: Tensor, frame_lengths: Tensor, log_bigram: Tensor) -> Tensor:
    """Log of the sum over all phone sequences of their bigram probability times the probability of their CTC alignments.

    The states are the phones, and a blank after each phone and after the start. Probabilities are normalised at every frame and
    need no logarithms, so the whole cost is F products with one matrix. A state whose probability underflows next to the best
    state of a frame does not matter later, because all states are connected.

    Shape: log_probs (B, F, V), frame_lengths (B,) from 1, log_bigram (V, V) of ``phone_lm.estimate_bigram``, finite -> (B,).
    Units: nats. The gradient in log_probs is the occupancy of each label.
    """
    directions = num_directions(log_probs)
    with torch.no_grad():
        value, occupancies = _forward_backward(log_probs.detach(), frame_lengths, log_bigram, directions)
    return WithOccupancies.apply(log_probs, value, occupancies)


def _forward_backward(
    log_probs: Tensor, frame_lengths: Tensor, log_bigram: Tensor, directions: int
) -> tuple[Tensor, Tensor | None]:
    steps, first, last = transitions(log_bigram.double())
    best = log_probs.amax(-1, keepdim=True).double()
    labels = (log_probs - best).exp()
    emissions = torch.cat([labels[..., :1].expand_as(labels), labels[..., 1:]], -1)
    # Both directions run in one loop over the frames, which halves the number of sequential steps.
    entered, log_scales = _recursion(
        both_ways(emissions, frame_lengths)[:directions],
        torch.stack([steps, steps.T])[:directions],
        torch.stack([first, last])[:directions],
    )
    states = entered[0] * emissions
    scales = masked(log_scales[0] + best[..., 0], frame_lengths).sum(1)
    value = (last_frame(states, frame_lengths) @ last).log() + scales
    if directions == 1:
        return value, None
    states = masked(states * turned_back(entered[1], frame_lengths), frame_lengths)
    states = states / states.sum(-1, keepdim=True).clamp(min=torch.finfo(states.dtype).tiny)
    num_labels = log_probs.shape[-1]
    return value, torch.cat([states[..., :num_labels].sum(-1, keepdim=True), states[..., num_labels:]], -1)


def transitions(log_bigram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The denominator as a Markov chain: blanks after the start and after each phone, then the phones.

    The step from a phone to itself has probability 1, as it prolongs the phone; two equal phones need a blank between them.

    Shape: log_bigram (V, V) -> probabilities of steps (S, S), of the first state (S,), of the end after each state (S,).
    """
    bigram, num_labels = log_bigram.exp(), len(log_bigram)
    blanks = torch.cat([torch.eye(num_labels, dtype=bigram.dtype, device=bigram.device), bigram[:, 1:]], 1)
    phones = blanks[1:].clone()
    loops = torch.arange(1, num_labels, device=bigram.device)
    phones[loops - 1, num_labels - 1 + loops] = 1.0
    steps = torch.cat([blanks, phones])
    return steps, steps[0], torch.cat([bigram[:, 0], bigram[1:, 0]])


def _recursion(emissions: Tensor, steps: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of entering each state at each frame. Weights are divided by a scale at every frame and returned with the scales.

    Shape: one or two directions, emissions (2, B, F, S), steps (2, S, S), first (2, S) -> (2, B, F, S), log scales (2, B, F).
    """
    entered, scales = torch.empty_like(emissions), emissions.new_ones(emissions.shape[:3])
    current = first[:, None].expand(-1, emissions.shape[1], -1)
    for frame in range(emissions.shape[2]):
        if frame:
            current = torch.bmm(current * emissions[:, :, frame - 1], steps)
            scales[:, :, frame] = scale = current.sum(-1)
            current = current / scale[..., None]
        entered[:, :, frame] = current
    return entered, scales.log()

"""The lattice-free MMI loss."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.lfmmi.denominator import denominator
from robust_asr.lfmmi.graphs import PhoneGraphs
from robust_asr.lfmmi.numerator import numerator


def lfmmi_loss(log_probs: Tensor, frame_lengths: Tensor, graphs: PhoneGraphs, log_bigram: Tensor) -> Tensor:
    """Denominator minus numerator: the negative log-probability of a text's phone sequences among all (Povey et al. 2016).

    Never negative but for rounding. A number added to every label of a frame changes nothing, so scores need not be
    normalised. Infinite, with zero gradient, where the frames cannot carry the text.

    Shape: log_probs (B, F, V), frame_lengths (B,) from 1, log_bigram (V, V) -> (B,).
    Units: nats.
    """
    value = denominator(log_probs, frame_lengths, log_bigram) - numerator(log_probs, frame_lengths, graphs, log_bigram)
    infeasible = graphs.frames_needed.to(frame_lengths.device) > frame_lengths
    # A constant in the place of the difference keeps the denominator's gradient out too.
    return torch.where(infeasible, torch.inf, value)

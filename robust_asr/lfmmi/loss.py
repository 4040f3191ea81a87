"""The lattice-free MMI loss."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.lfmmi.denominator import denominator
from robust_asr.lfmmi.graphs import PhoneGraphs
from robust_asr.lfmmi.numerator import numerator


def lfmmi_loss(log_probs: Tensor, frame_lengths: Tensor, graphs: PhoneGraphs, log_bigram: Tensor) -> Tensor:
    """Denominator minus numerator: the negative log-probability of the text among all phone sequences (Povey et al. 2016).

    The loss is never negative except for rounding. Adding a number to all labels of a frame does not change the loss, so scores
    need not be normalised. The loss is infinite, with zero gradient, if the audio has too few frames for the text.

    Shape: log_probs (B, F, V), frame_lengths (B,) from 1, log_bigram (V, V) -> (B,).
    Units: nats.
    """
    value = denominator(log_probs, frame_lengths, log_bigram) - numerator(log_probs, frame_lengths, graphs, log_bigram)
    infeasible = graphs.frames_needed.to(frame_lengths.device, non_blocking=True) > frame_lengths
    # The constant replaces the whole difference, so the denominator gets no gradient from an infeasible text either.
    return torch.where(infeasible, torch.inf, value)

"""Dropout that can be switched on in evaluation, with random draws of each utterance's own.

Legend: B utterances, F frames, D units.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from robust_asr.randomness import derive, keyed_choices


class KeyedDropout(nn.Module):
    """Dropout of single units in single frames, with one rate in training and another in evaluation.

    In training the draws come from the global generator, as those of ``torch.nn.Dropout``. In evaluation they come from a
    generator of each utterance, so they depend on its seed alone: not on the batch, the padding or other layers. Kept units
    are scaled by 1 / (1 - rate) in both modes.

    Args:
        rate: the share of units that training drops.
        layer: a number that no other dropout of the model has; it keys the draws.

    Attributes:
        evaluation_rate: the share of units that evaluation drops; 0, which is no dropout, until a model sets it.

    Units: rates in [0, 1).
    Shape: values (B, F, D), frame_lengths (B,) on the CPU, seeds (B,) int64 or None where evaluation drops nothing -> (B, F, D).
    """

    def __init__(self, rate: float, *, layer: int) -> None:
        super().__init__()
        self.rate = rate
        self.layer = layer
        self.evaluation_rate = 0.0

    def forward(self, values: Tensor, frame_lengths: Tensor, seeds: Tensor | None) -> Tensor:
        if self.training:
            return functional.dropout(values, self.rate)
        if not self.evaluation_rate:
            return values
        num_frames, num_units = values.shape[1:]
        seeds = derive(seeds, step=self.layer)
        probability = 1 - self.evaluation_rate
        sizes = frame_lengths * num_units, num_frames * num_units
        kept = keyed_choices(seeds, *sizes, probability=probability, device=values.device)
        return values * kept.view_as(values) / probability

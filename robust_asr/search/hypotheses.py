"""Steps that every beam search takes, over a batch at once.

Legend: B utterances, F frames, V labels, K hypotheses, C candidates a hypothesis, N all candidates of an utterance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.masking import length_mask
from robust_asr.types import Emissions

# A nat in the scores that are compared: finer differences are those of rounding, which depends on the processor.
_FINEST = 2**26
_MULTIPLIER = -7046029254386353131


def prepared(emissions: Emissions, *, blank: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities in which the padding is certain blanks, which change no score, and the lengths, on one device.

    Shape: (B, F, V), (B,), F the longest utterance's.
    """
    # A Mac's GPU has no double precision.
    device = "cpu" if emissions.log_probs.device.type == "mps" else emissions.log_probs.device
    frame_lengths = emissions.frame_lengths.to(device)
    longest = int(frame_lengths.max()) if len(frame_lengths) else 0
    log_probs = emissions.log_probs[:, :longest].detach().to(device).double()
    nothing = torch.full((log_probs.shape[-1],), -torch.inf, dtype=log_probs.dtype, device=device)
    nothing[blank] = 0.0
    return log_probs.where(length_mask(frame_lengths, longest)[..., None], nothing), frame_lengths


def offered(log_probs: Tensor, *, blank: int, num: int | None) -> tuple[Tensor, Tensor]:
    """What may follow in each frame: the ``num`` best labels, all for None, and never the blank.

    Shape: (B, F, V) -> log-probabilities (B, F, V), minus infinity for what may not follow; labels (B, F, C), the best first.
    """
    size = log_probs.shape[-1]
    offers = log_probs.clone()
    offers[..., blank] = -torch.inf
    num = size - 1 if num is None else min(num, size - 1)
    best = selected(offers.flatten(0, 1), num, threshold=torch.inf)[0].view(*offers.shape[:2], num)
    if num == size - 1:
        return offers, best
    return torch.full_like(offers, -torch.inf).scatter_(-1, best, offers.gather(-1, best)), best


def selected(scores: Tensor, num: int, *, threshold: float) -> tuple[Tensor, Tensor]:
    """The ``num`` best of each row, the best first, of equals the first; and whether each is near enough to the best.

    Shape: (B, N) -> places (B, num), alive (B, num).
    """
    size = scores.shape[1]
    best = scores.amax(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    behind = scores - best
    # All in one whole number, the place last, so that there are no equals.
    resolution = min(_FINEST, 2 ** (46 - size.bit_length()))
    ranks = (behind.clamp(min=-(2.0**16)) * resolution).round().long() * size
    ranks -= torch.arange(size, device=scores.device)
    places = ranks.topk(num, dim=1).indices
    return places, behind.gather(1, places) >= -threshold


def mixed(key: Tensor, value: Tensor) -> Tensor:
    """A number of 64 bits for a history and what follows it: others for others, but by a chance of 1 in 10^19."""
    mix = (key ^ (value + 1) * _MULTIPLIER) * _MULTIPLIER
    mix = (mix ^ (mix >> 29)) * 6364136223846793005
    return mix ^ (mix >> 32)


def traced(parents: list[Tensor], last: Tensor) -> Tensor:
    """The places in the beam of a hypothesis and its ancestors. Shape: F times (B, K), (B,) -> (B, F)."""
    places = []
    for frame in reversed(parents):
        places.append(last)
        last = frame.gather(1, last[:, None])[:, 0]
    return torch.stack(places[::-1], 1) if places else last.new_zeros(len(last), 0)


def along(path: Tensor, frames: list[Tensor]) -> Tensor:
    """What the frames hold at the places of a path. Shape: (B, F), F times (B, K) -> (B, F)."""
    return torch.stack(frames, 1).gather(2, path[..., None])[..., 0] if frames else path

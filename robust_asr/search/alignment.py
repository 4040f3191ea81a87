"""The best alignment of a known text.

Legend: B utterances, F frames, V labels, U tokens, S states: a gap, a token, a gap, ..., a token, a gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_asr.masking import length_mask


def best_labels(
    log_probs: Tensor, frame_lengths: Tensor, texts: Sequence[Sequence[int]], *, blank: int, silence: int | None = None
) -> Tensor:
    """The most probable labelling of the frames of all that CTC reads as these tokens (Viterbi).

    Where ``silence`` is given, a gap before the first token, after the last or next to a silence may hold more of it.

    Shape: log_probs (B, F, V), frame_lengths (B,), B texts -> (B, F).
    """
    device, longest = log_probs.device, max(map(len, texts), default=0)
    tokens = torch.tensor([[*text, *[blank] * (longest - len(text))] for text in texts], device=device).long()
    ends = 2 * torch.tensor([len(text) for text in texts], device=device)
    states = torch.full((len(texts), 2 * longest + 1), blank, device=device)
    states[:, 1::2] = tokens
    gaps = torch.zeros_like(states, dtype=torch.bool)
    if silence is not None:
        gaps[:, 0] = True
        gaps[:, 2::2] |= tokens == silence
        gaps[:, :-1:2] |= tokens == silence
        gaps.scatter_(1, ends[:, None], True)
        # Else a silence that the text does not have would end the row's last gap, too.
        gaps[:, 1::2] = False
    skips = torch.zeros_like(gaps)
    skips[:, 3::2] = tokens[:, 1:] != tokens[:, :-1]
    choices = torch.where(gaps, silence if silence is not None else blank, states)
    best = torch.full(states.shape, -torch.inf, dtype=log_probs.dtype, device=device)
    best[:, 0] = 0.0
    moves = []
    active = length_mask(frame_lengths, log_probs.shape[1])
    for frame in range(log_probs.shape[1]):
        heard = log_probs[:, frame]
        one = torch.nn.functional.pad(best, (1, 0), value=-torch.inf)[:, :-1]
        two = torch.nn.functional.pad(best, (2, 0), value=-torch.inf)[:, :-2].masked_fill(~skips, -torch.inf)
        reached, move = torch.stack([best, one, two]).max(0)
        reached = reached + torch.maximum(heard.gather(1, states), heard.gather(1, choices))
        best = reached.where(active[:, frame, None], best)
        moves.append(move)
    return _followed(log_probs, best, ends, moves, active, states, choices)


def _followed(
    log_probs: Tensor,
    best: Tensor,
    ends: Tensor,
    moves: list[Tensor],
    active: Tensor,
    states: Tensor,
    choices: Tensor,
) -> Tensor:
    """Back from the better of the last token and the gap after it."""
    before = (ends - 1).clamp(min=0)
    last = best.gather(1, torch.stack([ends, before], 1))
    state = torch.where(last[:, 0] >= last[:, 1], ends, before)[:, None]
    labels = torch.zeros(log_probs.shape[:2], dtype=torch.long, device=log_probs.device)
    for frame in reversed(range(log_probs.shape[1])):
        heard, plain, other = log_probs[:, frame], states.gather(1, state), choices.gather(1, state)
        label = torch.where(heard.gather(1, plain) >= heard.gather(1, other), plain, other)
        labels[:, frame] = label[:, 0]
        state = state - moves[frame].gather(1, state) * active[:, frame, None]
    return labels

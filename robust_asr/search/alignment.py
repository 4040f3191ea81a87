"""The best alignment of a known text, of CTC and of a transducer.

Legend: B utterances, F frames, V labels, U tokens, S states: a gap, a token, a gap, ..., a token, a gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.masking import length_mask


def best_labels(
    log_probs: Tensor, frame_lengths: Tensor, texts: Sequence[Sequence[int]], *, blank: int, silence: int | None = None
) -> Tensor:
    """The most probable labelling of the frames of all that CTC reads as these tokens (Viterbi).

    Where ``silence`` is given, a gap before the first token, after the last or next to a silence may hold more of it.

    Shape: log_probs (B, F, V), frame_lengths (B,), B texts -> (B, F).
    """
    device, longest = log_probs.device, max(map(len, texts), default=0)
    padded = [[*text, *[blank] * (longest - len(text))] for text in texts]
    tokens = torch.tensor(padded, device=device, dtype=torch.long).view(len(texts), longest)
    ends = 2 * torch.tensor([len(text) for text in texts], device=device, dtype=torch.long)
    states = torch.full((len(texts), 2 * longest + 1), blank, device=device)
    states[:, 1::2] = tokens
    heard = log_probs
    if silence is not None:
        # One more label, which is the blank or silence, whatever is more probable.
        either = torch.zeros_like(states, dtype=torch.bool)
        either[:, 0] = True
        either[:, :-1:2] |= tokens == silence
        either[:, 2::2] |= tokens == silence
        either.scatter_(1, ends[:, None], True)
        states = states.masked_fill(either, log_probs.shape[2])
        heard = torch.cat([log_probs, log_probs[..., [blank, silence]].amax(-1, keepdim=True)], -1)
    path = _best_path(heard, length_mask(frame_lengths, log_probs.shape[1]), states, ends)
    labels = states.gather(1, path)
    if silence is None:
        return labels
    quiet = torch.where(log_probs[..., silence] > log_probs[..., blank], silence, blank)
    return quiet.where(labels == log_probs.shape[2], labels)


def best_frames(scores: Tensor, frame_lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """The frame in which a transducer's most probable alignment emits each token (Viterbi); 0 where there is no token.

    Shape: scores (B, F, U + 1, 2), of the blank and of the next token (``next_scores``); frame_lengths (B,), token_lengths (B,)
        -> (B, U) int64.
    """
    blanks, tokens = scores.detach().double().unbind(-1)
    # Within a frame, the score of all tokens up to each: from any number of tokens before the frame to any after it.
    sums = functional.pad(tokens[..., :-1].cumsum(-1), (1, 0))
    entered = torch.full_like(sums[:, 0], -torch.inf)
    entered[:, 0] = 0.0
    origins = []
    for frame in range(scores.shape[1]):
        lead, origin = (entered - sums[:, frame]).cummax(1)
        origins.append(origin)
        entered = lead + sums[:, frame] + blanks[:, frame]
    place = token_lengths.to(scores.device, non_blocking=True)[:, None]
    tokens_so_far = torch.arange(scores.shape[2] - 1, device=scores.device)
    frames = torch.zeros(len(scores), len(tokens_so_far), dtype=torch.long, device=scores.device)
    for frame in range(scores.shape[1] - 1, -1, -1):
        before = torch.where(frame < frame_lengths[:, None], origins[frame].gather(1, place), place)
        frames = torch.where((before <= tokens_so_far) & (tokens_so_far < place), frame, frames)
        place = before
    return frames


def _best_path(heard: Tensor, active: Tensor, states: Tensor, ends: Tensor) -> Tensor:
    """Through the labels of ``states``, from the first to the one at ``ends`` or before it. Shape: (B, F, V) -> (B, F)."""
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 3::2] = states[:, 3::2] != states[:, 1::2][:, :-1]
    best = torch.full(states.shape, -torch.inf, dtype=heard.dtype, device=heard.device)
    best[:, 0] = 0.0
    moves = []
    for frame in range(heard.shape[1]):
        one = functional.pad(best, (1, 0), value=-torch.inf)[:, :-1]
        two = functional.pad(best, (2, 0), value=-torch.inf)[:, :-2].masked_fill(~skips, -torch.inf)
        reached, move = torch.stack([best, one, two]).max(0)
        reached = reached + heard[:, frame].gather(1, states)
        best = reached.where(active[:, frame, None], best)
        moves.append(move.where(active[:, frame, None], 0))
    before = (ends - 1).clamp(min=0)
    last = best.gather(1, torch.stack([ends, before], 1))
    place = torch.where(last[:, 0] >= last[:, 1], ends, before)[:, None]
    path = []
    for move in reversed(moves):
        path.append(place)
        place = place - move.gather(1, place)
    return torch.cat(path[::-1], 1) if path else states[:, :0]

"""Which frames a decoder attended to for each token, as spans that follow one another.

Legend: B utterances, F frames, U tokens, A attention heads of all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.masking import length_mask
from robust_asr.search.alignment import best_labels

_LEAST = 1e-6


def attended_spans(weights: Tensor, frame_lengths: Tensor, token_lengths: Tensor) -> list[list[tuple[int, int]]]:
    """The first frame of each token, and the first after it, by the head whose attention follows the text best.

    Each head gets the path from left to right that maximises the product of F a(token, frame) over the frames of tokens: attention
    relative to attention that is spread evenly. A frame may belong to no token. Of the heads the one with the largest product is
    taken, as FastSpeech (Ren et al. 2019, section 3.3) takes the head whose attention is most focused.

    Shape: weights (B, A, U, F), each row a distribution over the utterance's frames; frame_lengths (B,) and token_lengths (B,),
        no more tokens than frames -> B lists of a span a token.
    Units: frames.
    """
    num_utterances, num_heads, _, num_frames = weights.shape
    evenly = frame_lengths.clamp(min=1).to(weights.dtype)[:, None, None, None]
    gains = (weights * evenly).clamp(min=_LEAST).log()
    # Label 0 is no token, and worth nothing; label u is token u.
    gains = (
        torch.cat([gains.new_zeros(num_utterances, num_heads, 1, num_frames), gains], 2).transpose(2, 3).flatten(0, 1)
    )
    texts = [range(1, length + 1) for length in token_lengths.tolist() for _ in range(num_heads)]
    lengths = frame_lengths.repeat_interleave(num_heads)
    labels = best_labels(gains, lengths, texts, blank=0).masked_fill(~length_mask(lengths, num_frames), 0)
    totals = gains.gather(2, labels[..., None])[..., 0].sum(1).view(num_utterances, num_heads)
    best = totals.argmax(1)[:, None, None].expand(-1, 1, num_frames)
    chosen = labels.view(num_utterances, num_heads, num_frames).gather(1, best)[:, 0].tolist()
    return [_spans(row, length) for row, length in zip(chosen, token_lengths.tolist(), strict=True)]


def _spans(labels: list[int], num_tokens: int) -> list[tuple[int, int]]:
    spans: dict[int, tuple[int, int]] = {}
    for frame, label in enumerate(labels):
        spans[label] = spans.get(label, (frame, frame))[0], frame + 1
    return [spans[label] for label in range(1, num_tokens + 1)]

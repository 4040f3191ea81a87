"""The scores of a transducer's alignments, with the joint tensor in pieces, and the loss over all of them.

Legend: B utterances, F frames, U tokens, J joint units, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchaudio.functional import rnnt_loss

from robust_asr.types import TokenTargets


def next_scores(
    joint: Callable[[Tensor, Tensor], Tensor],
    frames: Tensor,
    frame_lengths: Tensor,
    predicted: Tensor,
    targets: TokenTargets,
    *,
    size: int,
    blank: int = 0,
    max_scores: int = 2**24,
) -> Tensor:
    """Log-probabilities of the blank and of the text's next token, of each frame after each number of its tokens.

    ``joint`` makes log-probabilities (B, F', U + 1, V) of frames (B, F', 1, J) and tokens (B, 1, U + 1, J); V is ``size``. An
    alignment is made of these two of the V only. So the frames are passed piece by piece, in pieces of at most ``max_scores``
    log-probabilities or one frame, and a piece is computed again for the gradient. Value and gradient are those of a single piece.

    Shape: frames (B, F, J), frame_lengths (B,); predicted (B, U + 1, J), before the first token and after each
        -> (B, F, U + 1, 2), with the F and the U of the longest utterance. After the last token no other follows; what stands
        there has no meaning.
    Units: nats.
    """
    # torchaudio refuses more frames than the longest utterance has. Reading a length on a GPU waits for queued work, once a loss.
    frames = frames[:, : int(frame_lengths.max())]
    longest = int(targets.token_lengths.max())
    tokens = targets.tokens[:, :longest].to(frames.device, non_blocking=True)
    predicted = predicted[:, None, : longest + 1]
    following = functional.pad(tokens, (0, 1), value=blank)[:, None, :, None]

    def pair(piece: Tensor, predicted: Tensor) -> Tensor:
        log_probs = joint(piece[:, :, None], predicted)
        chosen = log_probs.gather(-1, following.expand(*log_probs.shape[:-1], 1))
        return torch.cat([log_probs[..., blank, None], chosen], -1)

    scores_of_a_frame = len(frames) * (longest + 1) * size
    pieces = frames.split(max(max_scores // scores_of_a_frame, 1), 1)
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.cat([pair(piece, predicted) for piece in pieces], 1)
    # Reentrant checkpointing does not work with torch.autograd.grad, which attacks use.
    options = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(pair, piece, predicted, **options) for piece in pieces], 1)


def transducer_loss(scores: Tensor, frame_lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of each text, summed over its alignments (Graves 2012, equation 12).

    The recursion is torchaudio's, which takes float32 only; its result is float32.

    Shape: scores (B, F, U + 1, 2) of ``next_scores``, frame_lengths (B,), at least 1; token_lengths (B,) -> (B,).
    Units: nats.
    """
    # Of the two the blank is number 0, and the next token, whichever it is, is number 1.
    ones = torch.ones(len(scores), scores.shape[2] - 1, dtype=torch.int32, device=scores.device)
    lengths = frame_lengths.int(), token_lengths.to(scores.device, non_blocking=True).int()
    return rnnt_loss(scores.float(), ones, *lengths, blank=0, reduction="none", fused_log_softmax=False)

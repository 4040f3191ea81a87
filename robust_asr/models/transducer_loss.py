"""The loss of a transducer, with the joint tensor in pieces.

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


def transducer_loss(
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
    """Negative log-likelihood of each text, summed over its alignments (Graves 2012, equation 12).

    ``joint`` makes log-probabilities (B, F', U + 1, V) of frames (B, F', 1, J) and tokens (B, 1, U + 1, J); V is ``size``. The
    recursion needs two of the V only, that of the blank and that of the next token. So the frames are passed piece by piece, in
    pieces of at most ``max_scores`` log-probabilities or one frame, and a piece is computed again for the gradient. Value and
    gradient are those of a single piece.

    The recursion is torchaudio's, which takes float32 only; its result is float32.

    Shape: frames (B, F, J), frame_lengths (B,), at least 1; predicted (B, U + 1, J), before the first token and after each
        -> (B,).
    Units: nats.
    """
    # torchaudio refuses more frames than the longest utterance has. Reading a length on a GPU waits for queued work, once a loss.
    frames = frames[:, : int(frame_lengths.max())]
    longest = int(targets.token_lengths.max())
    tokens = targets.tokens[:, :longest].to(frames.device, non_blocking=True)
    token_lengths = targets.token_lengths.to(frames.device, non_blocking=True)
    predicted = predicted[:, None, : longest + 1]
    # After the last token no other follows; the recursion does not read what stands there.
    following = functional.pad(tokens, (0, 1), value=blank)[:, None, :, None]

    def pair(piece: Tensor, predicted: Tensor) -> Tensor:
        log_probs = joint(piece[:, :, None], predicted)
        chosen = log_probs.gather(-1, following.expand(*log_probs.shape[:-1], 1))
        return torch.cat([log_probs[..., blank, None], chosen], -1).float()

    scores_of_a_frame = len(frames) * (longest + 1) * size
    pieces = frames.split(max(max_scores // scores_of_a_frame, 1), 1)
    if len(pieces) == 1 or not torch.is_grad_enabled():
        pairs = [pair(piece, predicted) for piece in pieces]
    else:
        # Reentrant checkpointing does not work with torch.autograd.grad, which attacks use.
        options = {"use_reentrant": False, "preserve_rng_state": False}
        pairs = [checkpoint(pair, piece, predicted, **options) for piece in pieces]
    # In the pairs the blank is number 0, and the next token, whichever it is, is number 1.
    log_pairs, ones = torch.cat(pairs, 1), torch.ones_like(tokens, dtype=torch.int32)
    lengths = frame_lengths.int(), token_lengths.int()
    return rnnt_loss(log_pairs, ones, *lengths, blank=0, reduction="none", fused_log_softmax=False)

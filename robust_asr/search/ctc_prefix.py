"""What CTC expects after the tokens so far, for a search that writes token by token.

Legend: B utterances, K hypotheses of an utterance, N = B K, F frames, V labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.masking import length_mask
from robust_asr.search.fusion import States


class CtcPrefixes:
    """The probability of a next token is that of all texts that begin with the tokens so far and it, over that of all texts that
    begin with the tokens so far (Watanabe et al. 2017, section II-C). The sum over a text and its end is minus its CTC loss.

    Shape: log_probs (B, F, V), frame_lengths (B,).
    """

    def __init__(self, log_probs: Tensor, frame_lengths: Tensor, *, width: int, blank: int) -> None:
        # Certain blanks in the padding change no probability.
        nothing = torch.full_like(log_probs[0, 0], -torch.inf)
        nothing[blank] = 0.0
        inside = length_mask(frame_lengths, log_probs.shape[1])[..., None]
        self._log_probs = log_probs.where(inside, nothing).repeat_interleave(width, 0)
        self._blank = blank

    def start(self) -> States:
        """The state before the first token: log-probabilities of the tokens after 0 to F frames that end in the last token, and in
        a blank; the last token; the log-probability of the tokens as a prefix. Shape: (N, F + 1), (N, F + 1), (N,), (N,)."""
        blanks = torch.nn.functional.pad(self._log_probs[..., self._blank].cumsum(1), (1, 0))
        last = torch.full_like(blanks[:, 0], self._blank, dtype=torch.long)
        return States((torch.full_like(blanks, -torch.inf), blanks, last, torch.zeros_like(blanks[:, 0])))

    def step(self, tokens: Tensor, state: States) -> tuple[Tensor, States]:
        """Log-probabilities of the next token; the blank is the end of the text. Shape: tokens (N,) -> (N, V)."""
        heard, silent, last, total = self._extended(tokens, state)
        again = torch.arange(self._log_probs.shape[2], device=tokens.device) == last[:, None]
        # A token that is the last one again needs a blank between.
        ready = torch.where(again[:, None], silent[:, :-1, None], torch.logaddexp(heard, silent)[:, :-1, None])
        prefixes = (ready + self._log_probs).logsumexp(1)
        prefixes[:, self._blank] = torch.logaddexp(heard[:, -1], silent[:, -1])
        expected = (prefixes - total[:, None]).where(prefixes.isfinite(), -torch.inf)
        return expected, States((heard, silent, last, total))

    def _extended(self, tokens: Tensor, state: States) -> tuple[Tensor, ...]:
        """The state after one more token; a blank, which opens a text, changes nothing."""
        heard, silent, last, total = state
        own = self._log_probs.gather(2, tokens[:, None, None].expand(-1, self._log_probs.shape[1], 1))[..., 0]
        ready = torch.where((tokens == last)[:, None], silent, torch.logaddexp(heard, silent))
        never = torch.full_like(total, -torch.inf)
        heard_frames, silent_frames = [never], [never]
        for frame in range(own.shape[1]):
            before = heard_frames[-1], silent_frames[-1]
            heard_frames.append(torch.logaddexp(before[0], ready[:, frame]) + own[:, frame])
            silent_frames.append(torch.logaddexp(*before) + self._log_probs[:, frame, self._blank])
        grown = (
            torch.stack(heard_frames, 1),
            torch.stack(silent_frames, 1),
            tokens,
            (ready[:, :-1] + own).logsumexp(1),
        )
        opens = tokens == self._blank
        return tuple(
            torch.where(opens.view(-1, *(1,) * (old.dim() - 1)), old, new)
            for old, new in zip((heard, silent, last, total), grown, strict=True)
        )

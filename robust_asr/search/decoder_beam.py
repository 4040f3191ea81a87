"""Beam search with a decoder that writes one token after another, and with a language model.

Legend: B utterances, K hypotheses of an utterance, N = B K, V vocabulary, U tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_asr.search.ctc_prefix import CtcPrefixes
from robust_asr.search.fusion import Fused, FusedSearch, States, Step, require_not_negative
from robust_asr.search.hypotheses import selected
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions

# Looking whether the search is over, the host waits for the device.
_TOKENS_BETWEEN_LOOKS = 4


class DecoderBeam(FusedSearch):
    """The text of the highest score that a beam finds; with ``width`` 1 the most probable next token, again and again.

    The score of a text of U tokens is the sum of (1 - ctc_weight) log p(token | tokens before, audio) by the decoder + ctc_weight
    that by CTC (Watanabe et al. 2017) + language_model_weight log p(token | tokens before) over its tokens and its end, divided by
    (U + 1)^length_power. A sum alone, ``length_power`` 0, prefers short texts.
    A text ends when it fills the room that its audio gives it. The search ends when no hypothesis can become better than the best
    complete text, so the result of an utterance does not depend on the others.

    Units: scores in nats.
    Errors: FileNotFoundError; ValueError for a value out of range, or for a language model of other tokens.
    """

    def __init__(
        self,
        width: int = 10,
        *,
        length_power: float = 1.0,
        ctc_weight: float = 0.0,
        language_model: str | None = None,
        language_model_weight: float = 0.0,
    ) -> None:
        if not 0 <= ctc_weight < 1:
            raise ValueError(f"ctc_weight must be at least 0 and below 1, found {ctc_weight}")
        if width < 1:
            raise ValueError(f"width must be at least 1, found {width}")
        require_not_negative(length_power=length_power)
        super().__init__(language_model, language_model_weight)
        self.width = width
        self.length_power = length_power
        self.ctc_weight = ctc_weight

    def __call__(
        self, step: Step, state: Any, room: Tensor, tokenizer: Tokenizer, *, emissions: Emissions | None = None
    ) -> list[list[int]]:
        """The tokens of each utterance, without its end.

        Args:
            state: of N = B width hypotheses before the first token, the hypotheses of an utterance next to each other.
            room: how many tokens each utterance may have.
            emissions: of CTC, where ``ctc_weight`` is not 0.

        Shape: room (B,) -> B lists.
        """
        num = len(room) * self.width
        parts = [(step, state, 1.0 - self.ctc_weight)]
        if self.ctc_weight:
            heard = emissions.log_probs, emissions.frame_lengths
            prefixes = CtcPrefixes(*heard, width=self.width, blank=tokenizer.blank)
            parts.append((prefixes.step, prefixes.start(), self.ctc_weight))
        if (model := self.fused(tokenizer, room.device)) is not None:
            parts.append((model.step, model.initial_state(num), self.language_model_weight))
        if len(parts) > 1:
            steps, states, weights = zip(*parts, strict=True)
            step, state = Fused(steps, weights), States(states)
        beam = _Beam.start(len(room), self.width, room.device)
        tokens = torch.full((num,), tokenizer.blank, device=room.device)
        for place in range(int(room.max()) + 1 if len(room) else 0):
            log_probs, state = step(tokens, state)
            beam, rows = beam.extended(
                log_probs.view(len(room), self.width, -1), room - place, end=tokenizer.blank, power=self.length_power
            )
            if place % _TOKENS_BETWEEN_LOOKS == 0 and not beam.can_improve(room, self.length_power):
                break
            tokens, state = beam.written[:, :, -1].flatten(), state[rows]
        texts = zip(beam.best_written.tolist(), beam.best_lengths.tolist(), strict=True)
        return [text[:length] for text, length in texts]


@dataclass(frozen=True)
class _Beam:
    """The hypotheses that go on, and the best complete text so far.

    Shape: scores (B, K), written (B, K, U), best (B,), best_written (B, U), best_lengths (B,).
    """

    scores: Tensor
    written: Tensor
    best: Tensor
    best_written: Tensor
    best_lengths: Tensor

    @classmethod
    def start(cls, num_utterances: int, width: int, device: torch.device) -> _Beam:
        scores = torch.full((num_utterances, width), -torch.inf, device=device)
        scores[:, 0] = 0.0
        nothing = torch.zeros(num_utterances, width, 0, dtype=torch.long, device=device)
        return cls(
            scores, nothing, torch.full_like(scores[:, 0], -torch.inf), nothing[:, 0], nothing.new_zeros(num_utterances)
        )

    def can_improve(self, room: Tensor, power: float) -> bool:
        """Whether a hypothesis may become better than the best complete text. Shape: room (B,), of the whole text."""
        # What follows adds at most 0, and the longest text divides by most.
        return bool((self.scores.amax(1) / (room + 1) ** power > self.best).any())

    def extended(self, log_probs: Tensor, room: Tensor, *, end: int, power: float) -> tuple[_Beam, Tensor]:
        """One token later, and the row of each hypothesis among those before. Shape: (B, K, V), (B,) -> rows (N,)."""
        num_utterances, width, size = log_probs.shape
        may_follow = (room > 0)[:, None] | (torch.arange(size, device=room.device) == end)
        candidates = (self.scores[..., None] + log_probs).masked_fill(~may_follow[:, None], -torch.inf).flatten(1)
        places, _ = selected(candidates, width, threshold=torch.inf)
        scores, parents, tokens = candidates.gather(1, places), places // size, places % size
        written = self.written.gather(1, parents[..., None].expand(-1, -1, self.written.shape[2]))
        length = written.shape[2]
        complete = (scores / (length + 1) ** power).masked_fill(tokens != end, -torch.inf)
        top, place = complete.max(1)
        better = top > self.best
        found = written.gather(1, place[:, None, None].expand(-1, 1, length))[:, 0]
        before = torch.cat([self.best_written, found.new_zeros(num_utterances, length - self.best_written.shape[1])], 1)
        beam = _Beam(
            scores.masked_fill(tokens == end, -torch.inf),
            torch.cat([written, tokens[..., None]], 2),
            top.where(better, self.best),
            found.where(better[:, None], before),
            torch.where(better, length, self.best_lengths),
        )
        rows = torch.arange(num_utterances, device=room.device)[:, None] * width + parents
        return beam, rows.flatten()

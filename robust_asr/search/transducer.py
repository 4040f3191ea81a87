"""Beam search for transducers, with or without a language model.

Legend: B utterances, K hypotheses of an utterance, N = B K, F frames, J joint units, V vocabulary, U tokens.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from robust_asr.search.fusion import FusedSearch, require_not_negative
from robust_asr.search.greedy import transcript_of
from robust_asr.search.language_model import LanguageModel
from robust_asr.search.transducer_hypotheses import Complete, Hypotheses, chosen
from robust_asr.text import Tokenizer
from robust_asr.types import Transcript

# The host asks the device this rarely whether anything is left to do.
_STEPS_BETWEEN_LOOKS = 8


class TransducerNetwork(Protocol):
    """A predictor, which steps like a language model but answers units, and a joint layer. Id 0, the blank, opens a text."""

    def initial_state(self, num: int) -> Tensor: ...

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: tokens (N,), state (N, ...) -> units (N, J), the state after the tokens."""

    def log_probs(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """Shape: (N, J), (N, J) -> (N, V)."""


class TransducerBeam(FusedSearch):
    """The text of the highest total probability that a beam finds.

    With ``width`` 1 the most probable step is taken, again and again. That misses tokens whose probability is spread over many
    frames, in each of which the blank is more probable.

    A step of a hypothesis is a blank, which ends a frame, or a token. All hypotheses of an utterance have made the same number of
    steps (alignment-length synchronous decoding: Saon et al. 2020), so that those of the same text meet in the same frame, where
    they become one and their probabilities are added. A text is complete with the blank of the last frame.

    Complete texts are compared by their score divided by (U + 1)^length_power. An utterance is finished when no text can become
    better than the best complete one. The score is the log-probability and, with a language model, ``language_model_weight`` times
    its log-probabilities of the tokens and of the end (shallow fusion: Gulcehre et al. 2015). A token belongs to the frame in which
    the best alignment of the text emits it.

    Units: scores in nats; tokens_per_frame bounds the tokens of a text, in tokens for each frame of the utterance.
    """

    def __init__(
        self,
        width: int = 4,
        *,
        tokens_per_frame: float = 1.0,
        length_power: float = 0.0,
        language_model: str | None = None,
        language_model_weight: float = 0.0,
    ) -> None:
        if width < 1 or not 0 < tokens_per_frame < float("inf"):
            raise ValueError(
                f"width must be at least 1 and tokens_per_frame positive, found {width} and {tokens_per_frame}"
            )
        require_not_negative(length_power=length_power)
        super().__init__(language_model, language_model_weight)
        self.width = width
        self.tokens_per_frame = tokens_per_frame
        self.length_power = length_power

    @torch.no_grad()
    def __call__(
        self,
        network: TransducerNetwork,
        frames: Tensor,
        frame_lengths: Tensor,
        tokenizer: Tokenizer,
        *,
        frame_shift: float,
    ) -> list[Transcript]:
        """Shape: frames (B, F, J), frame_lengths (B,) -> B transcripts. Units: frame_shift in seconds."""
        room = (frame_lengths * self.tokens_per_frame).ceil().long()
        longest, most = (int(sizes.max()) if len(sizes) else 0 for sizes in (frame_lengths, room))
        beam = Hypotheses.start(len(frames), self.width, most, like=frames)
        best = Complete.start(beam)
        fused = self.fused(tokenizer, frames.device)
        models = _Models(network, fused, len(frames) * self.width, blank=tokenizer.blank, device=frames.device)
        for step in range(longest + most):
            if step % _STEPS_BETWEEN_LOOKS == 0 and not bool(beam.scores.isfinite().any()):
                break
            # A place without a hypothesis may stand anywhere, but in no padding.
            at = torch.minimum((step - beam.counts).clamp(min=0), frame_lengths[:, None] - 1)
            heard = frames.gather(1, at[..., None].expand(-1, -1, frames.shape[2]))
            log_probs = models.heard(heard).to(beam.scores.dtype)
            expected = models.expected(like=log_probs) * self.language_model_weight
            blanks, last = beam.scores + log_probs[..., tokenizer.blank], at == frame_lengths[:, None] - 1
            complete = (blanks + expected[..., tokenizer.blank]).masked_fill(~last, -torch.inf)
            best.update(complete / (beam.counts + 1) ** self.length_power, beam)
            allowed = beam.counts < room[:, None]
            blanks = blanks.masked_fill(last, -torch.inf)
            scores = (beam.scores[..., None] + log_probs + expected).masked_fill(~allowed[..., None], -torch.inf)
            scores[..., tokenizer.blank] = -torch.inf
            parents, tokens, scores = chosen(*beam.merged(blanks, scores), blank=tokenizer.blank)
            beam = beam.extended(parents, tokens, scores, log_probs, step=step, blank=tokenizer.blank)
            # No text can have more than what all hypotheses have together.
            reachable = beam.scores.logsumexp(1) / (room + 1) ** self.length_power
            beam.scores.masked_fill_((reachable <= best.scores)[:, None], -torch.inf)
            models.advance(parents, tokens)
        return [transcript_of(runs, tokenizer, frame_shift=frame_shift) for runs in best.runs()]


class _Models:
    """The predictor and the language model of every hypothesis, after the tokens of its text."""

    def __init__(
        self,
        network: TransducerNetwork,
        language_model: LanguageModel | None,
        num: int,
        *,
        blank: int,
        device: torch.device,
    ) -> None:
        self._network, self._blank = network, blank
        self._steppers = [network] if language_model is None else [network, language_model]
        first = torch.full((num,), blank, device=device)
        # Of each model the answers and the states.
        self._answered = [model.step(first, model.initial_state(num)) for model in self._steppers]

    def heard(self, frames: Tensor) -> Tensor:
        """Shape: frames (B, K, J) -> log-probabilities (B, K, V)."""
        return self._network.log_probs(frames.flatten(0, 1), self._answered[0][0]).unflatten(0, frames.shape[:2])

    def expected(self, *, like: Tensor) -> Tensor:
        """The language model's log-probabilities; zeros without one. Shape: like (B, K, V) -> (B, K, V)."""
        if len(self._answered) == 1:
            return torch.zeros_like(like)
        return self._answered[1][0].view_as(like).to(like.dtype)

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Shape: parents (B, K), the places of those that are continued; tokens (B, K), by which: a blank changes nothing."""
        rows = (torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1] + parents).flatten()
        grew, tokens = (tokens != self._blank).flatten(), tokens.flatten()
        for index, (model, before) in enumerate(zip(self._steppers, self._answered, strict=True)):
            before = tuple(part[rows] for part in before)
            after = model.step(tokens, before[1])
            kinds = (grew.view(-1, *(1,) * (part.dim() - 1)) for part in before)
            self._answered[index] = tuple(map(torch.where, kinds, after, before))

"""Beam search for transducers, with or without a language model.

Legend: B utterances, K hypotheses of an utterance, N = B K, F frames, J joint units, V vocabulary, U tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from robust_asr.search.base import Search
from robust_asr.search.greedy import transcript_of
from robust_asr.search.hypotheses import mixed, selected
from robust_asr.text import Tokenizer
from robust_asr.types import Transcript

# The host asks the device this rarely whether anything is left to do.
_STEPS_BETWEEN_LOOKS = 8


class Scorer(Protocol):
    """What may be fused: log-probabilities of the next token by the tokens before. The blank opens and ends a text.

    ``state[rows]`` are the states of the hypotheses ``rows`` (N,).
    """

    def initial_state(self, num: int) -> Tensor: ...

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: tokens (N,), state (N, ...) -> log_probs (N, V), the state after the tokens."""


class TransducerNetwork(Protocol):
    """A predictor, which steps like a ``Scorer`` but answers units, and a joint layer."""

    def initial_state(self, num: int) -> Tensor: ...

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: tokens (N,), state (N, ...) -> units (N, J), the state after the tokens."""

    def log_probs(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """Shape: (N, J), (N, J) -> (N, V)."""


class TransducerBeam(Search):
    """The text of the highest total probability that a beam finds.

    With ``width`` 1 the most probable step is taken, again and again. That misses tokens whose probability is spread over many
    frames, in each of which the blank is more probable.

    A step of a hypothesis is a blank, which ends a frame, or a token. All hypotheses of an utterance have made the same number of
    steps (alignment-length synchronous decoding: Saon et al. 2020), so that those of the same text meet in the same frame, where
    they become one and their probabilities are added. A text is complete with the blank of the last frame.

    Complete texts are compared by their score divided by (U + 1)^length_power. An utterance is finished when no text can become
    better than the best complete one. The score is the log-probability and, with a scorer, ``scorer_weight`` times the scorer's
    log-probabilities of the tokens and of the end (shallow fusion: Gulcehre et al. 2015). A token belongs to the frame in which
    the best alignment of the text emits it.

    Units: scores in nats; tokens_per_frame bounds the tokens of a text, in tokens for each frame of the utterance.
    """

    def __init__(
        self,
        width: int = 4,
        *,
        tokens_per_frame: float = 1.0,
        length_power: float = 0.0,
        scorer: Scorer | None = None,
        scorer_weight: float = 0.0,
    ) -> None:
        if width < 1 or not 0 < tokens_per_frame < float("inf"):
            raise ValueError(
                f"width must be at least 1 and tokens_per_frame positive, found {width} and {tokens_per_frame}"
            )
        for name, value in (("length_power", length_power), ("scorer_weight", scorer_weight)):
            # With a negative value the search would not know when no text can become better.
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, found {value}")
        if (scorer is None) is not (scorer_weight == 0):
            given = "no scorer" if scorer is None else "a scorer"
            raise ValueError(f"scorer_weight is {scorer_weight} with {given}: give both or none")
        self.width = width
        self.tokens_per_frame = tokens_per_frame
        self.length_power = length_power
        self.scorer = scorer
        self.scorer_weight = scorer_weight

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
        beam = _Beam.start(len(frames), self.width, most, like=frames)
        best = _Best.start(beam)
        models = _Models(network, self.scorer, len(frames) * self.width, blank=tokenizer.blank, device=frames.device)
        for step in range(longest + most):
            if step % _STEPS_BETWEEN_LOOKS == 0 and not bool(beam.scores.isfinite().any()):
                break
            # A place without a hypothesis may stand anywhere, but in no padding.
            at = torch.minimum((step - beam.counts).clamp(min=0), frame_lengths[:, None] - 1)
            heard = frames.gather(1, at[..., None].expand(-1, -1, frames.shape[2]))
            log_probs = models.heard(heard).to(beam.scores.dtype)
            expected = models.expected(like=log_probs) * self.scorer_weight
            blanks, last = beam.scores + log_probs[..., tokenizer.blank], at == frame_lengths[:, None] - 1
            complete = (blanks + expected[..., tokenizer.blank]).masked_fill(~last, -torch.inf)
            best.update(complete / (beam.counts + 1) ** self.length_power, beam)
            allowed = beam.counts < room[:, None]
            blanks = blanks.masked_fill(last, -torch.inf)
            scores = (beam.scores[..., None] + log_probs + expected).masked_fill(~allowed[..., None], -torch.inf)
            scores[..., tokenizer.blank] = -torch.inf
            parents, tokens, scores = _chosen(*beam.merged(blanks, scores), blank=tokenizer.blank)
            beam = beam.extended(parents, tokens, scores, log_probs, step=step, blank=tokenizer.blank)
            # No text can have more than what all hypotheses have together.
            reachable = beam.scores.logsumexp(1) / (room + 1) ** self.length_power
            beam.scores.masked_fill_((reachable <= best.scores)[:, None], -torch.inf)
            models.advance(parents, tokens)
        return [transcript_of(runs, tokenizer, frame_shift=frame_shift) for runs in best.runs()]


class _Models:
    """The predictor and the scorer of every hypothesis, after the tokens of its text."""

    def __init__(
        self, network: TransducerNetwork, scorer: Scorer | None, num: int, *, blank: int, device: torch.device
    ) -> None:
        self._network, self._blank = network, blank
        self._steppers = [network] if scorer is None else [network, scorer]
        first = torch.full((num,), blank, device=device)
        # Of each model the answers and the states.
        self._answered = [model.step(first, model.initial_state(num)) for model in self._steppers]

    def heard(self, frames: Tensor) -> Tensor:
        """Shape: frames (B, K, J) -> log-probabilities (B, K, V)."""
        return self._network.log_probs(frames.flatten(0, 1), self._answered[0][0]).unflatten(0, frames.shape[:2])

    def expected(self, *, like: Tensor) -> Tensor:
        """The scorer's log-probabilities; zeros without a scorer. Shape: like (B, K, V) -> (B, K, V)."""
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


@dataclass
class _Beam:
    """The hypotheses of all utterances.

    Shape: scores, counts of tokens, keys of texts, keys without the last token, last tokens (B, K); written tokens, their frames
        and their log-probabilities (B, K, U).
    """

    scores: Tensor
    counts: Tensor
    keys: Tensor
    parent_keys: Tensor
    last: Tensor
    written: Tensor
    frames: Tensor
    log_probs: Tensor

    @classmethod
    def start(cls, num_utterances: int, width: int, most: int, *, like: Tensor) -> _Beam:
        # A Mac's GPU has no double precision.
        kind = torch.float32 if like.device.type == "mps" else torch.float64
        zeros = torch.zeros(num_utterances, width, dtype=torch.long, device=like.device)
        written = zeros.new_zeros(num_utterances, width, max(most, 1))
        scores = torch.full_like(zeros, -torch.inf, dtype=kind)
        scores[:, 0] = 0.0
        return cls(scores, zeros, zeros, zeros - 1, zeros, written, written, written.to(kind))

    def merged(self, blanks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The same candidates, where two of one text have become one: the better has the sum, the other nothing.

        A text that a hypothesis has may also come of another hypothesis by its last token; both then end in the same frame.

        Shape: blanks (B, K), scores (B, K, V) -> the same.
        """
        same = self.parent_keys[:, :, None] == self.keys[:, None, :]
        # A place that holds no hypothesis may have the key of one.
        held = self.scores.isfinite()
        same &= held[:, None, :] & (held & (self.counts > 0))[:, :, None]
        there, donors = same.int().max(2)
        there = there.bool()
        places = donors * scores.shape[2] + self.last
        flat = scores.flatten(1)
        donated = flat.gather(1, places).masked_fill(~there, -torch.inf)
        total, by_token = torch.logaddexp(blanks, donated), donated > blanks
        # What has no partner is written to a place of its own behind all others.
        places = places.where(there, flat.shape[1])
        flat = torch.cat([flat, flat[:, :1]], 1)
        flat = flat.scatter(1, places, total.masked_fill(~by_token, -torch.inf))[:, :-1]
        return total.masked_fill(by_token, -torch.inf), flat.view_as(scores)

    def extended(
        self, parents: Tensor, tokens: Tensor, scores: Tensor, log_probs: Tensor, *, step: int, blank: int
    ) -> _Beam:
        """One step later. Shape: parents, tokens, scores (B, K), log_probs (B, K, V)."""
        heard = log_probs.flatten(1).gather(1, parents * log_probs.shape[2] + tokens)
        counts, keys, parent_keys, last = (
            values.gather(1, parents) for values in (self.counts, self.keys, self.parent_keys, self.last)
        )
        grew = tokens != blank
        place = torch.arange(self.written.shape[2], device=tokens.device) == counts[..., None]
        here = place & grew[..., None]
        rows = parents[..., None].expand_as(self.written)
        written, frames, heard_before = (
            torch.where(here, new[..., None], old.gather(1, rows))
            for new, old in ((tokens, self.written), (step - counts, self.frames), (heard, self.log_probs))
        )
        return _Beam(
            scores,
            counts + grew,
            torch.where(grew, mixed(keys, tokens), keys),
            torch.where(grew, keys, parent_keys),
            torch.where(grew, tokens, last),
            written,
            frames,
            heard_before,
        )


@dataclass
class _Best:
    """The best complete text of each utterance so far. Shape: scores, counts (B,), written, frames, log_probs (B, U)."""

    scores: Tensor
    counts: Tensor
    written: Tensor
    frames: Tensor
    log_probs: Tensor

    @classmethod
    def start(cls, beam: _Beam) -> _Best:
        return cls(
            torch.full_like(beam.scores[:, 0], -torch.inf),
            *(value[:, 0] for value in (beam.counts, beam.written, beam.frames, beam.log_probs)),
        )

    def update(self, scores: Tensor, beam: _Beam) -> None:
        """Shape: scores (B, K) of the hypotheses that are complete, else minus infinity."""
        top, place = scores.max(1)
        better = top > self.scores
        rows = torch.arange(len(place), device=place.device)
        for field in fields(self):
            new = top if field.name == "scores" else getattr(beam, field.name)[rows, place]
            old = getattr(self, field.name)
            setattr(self, field.name, torch.where(better.view(-1, *(1,) * (old.dim() - 1)), new, old))

    def runs(self) -> list[list[tuple[int, int, int, int, float]]]:
        """Each token of each utterance: the token, its frame, the frame after it, 1, its log-probability."""
        columns = (value.tolist() for value in (self.counts, self.written, self.frames, self.log_probs))
        return [
            [
                (token, frame, frame + 1, 1, value)
                for token, frame, value in zip(*(row[:count] for row in rows), strict=True)
            ]
            for count, *rows in zip(*columns, strict=True)
        ]


def _chosen(blanks: Tensor, scores: Tensor, *, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates, as many as there are hypotheses. Shape: blanks (B, K), scores (B, K, V) -> parents, tokens, scores."""
    width, size = scores.shape[1:]
    candidates = torch.cat([blanks, scores.flatten(1)], 1)
    places, _ = selected(candidates, width, threshold=torch.inf)
    token_places = places - width
    is_blank = token_places < 0
    parents = torch.where(is_blank, places, token_places // size)
    tokens = torch.where(is_blank, blank, token_places % size)
    return parents, tokens, candidates.gather(1, places)

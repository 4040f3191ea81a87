"""The hypotheses of a transducer's beam, and the best complete text so far.

Legend: B utterances, K hypotheses of an utterance, V vocabulary, U tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robust_asr.search.hypotheses import mixed, selected


@dataclass
class Hypotheses:
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
    def start(cls, num_utterances: int, width: int, most: int, *, like: Tensor) -> Hypotheses:
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
    ) -> Hypotheses:
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
        return Hypotheses(
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
class Complete:
    """The best complete text of each utterance so far. Shape: scores, counts (B,), written, frames, log_probs (B, U)."""

    scores: Tensor
    counts: Tensor
    written: Tensor
    frames: Tensor
    log_probs: Tensor

    @classmethod
    def start(cls, beam: Hypotheses) -> Complete:
        return cls(
            torch.full_like(beam.scores[:, 0], -torch.inf),
            *(value[:, 0] for value in (beam.counts, beam.written, beam.frames, beam.log_probs)),
        )

    def update(self, scores: Tensor, beam: Hypotheses) -> None:
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


def chosen(blanks: Tensor, scores: Tensor, *, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates, as many as there are hypotheses. Shape: blanks (B, K), scores (B, K, V) -> parents, tokens, scores."""
    width, size = scores.shape[1:]
    candidates = torch.cat([blanks, scores.flatten(1)], 1)
    places, _ = selected(candidates, width, threshold=torch.inf)
    token_places = places - width
    is_blank = token_places < 0
    parents = torch.where(is_blank, places, token_places // size)
    tokens = torch.where(is_blank, blank, token_places % size)
    return parents, tokens, candidates.gather(1, places)

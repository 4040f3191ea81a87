"""A vote over draws of a random recogniser: with Gaussian noise in front, sequential randomised smoothing (OR21).

Legend: B utterances, T samples, N draws of an utterance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robust_asr.defenses.votes import Vote
from robust_asr.models.base import Knowledge, Recognizer, check_knowledge
from robust_asr.models.wrapper import Wrapper
from robust_asr.randomness import Key, derive, fresh_seeds
from robust_asr.types import Targets, Transcript


class Voted(Wrapper):
    """A recogniser whose transcript is a vote over N draws of the one inside, and whose loss is that of a single draw.

    The copies of an utterance are rows of one batch, as many at once as ``seconds_at_once`` allows. A transcript costs N passes.

    An attacker has the gradient of one draw at a time and chooses the draws, so the attacker's view is the recogniser inside, and
    systems that differ by their vote alone are attacked once.

    Args:
        seconds_at_once: audio of a pass, padding included, at most; at least one row is passed.

    Errors: ValueError for a recogniser that is not random, all of whose draws are equal, and for one that the vote cannot count.
    """

    stochastic = True

    def __init__(self, recognizer: Recognizer, vote: Vote, *, seconds_at_once: float = 600.0) -> None:
        super().__init__()
        if not recognizer.stochastic:
            raise ValueError(
                f"vote: {type(recognizer.innermost).__name__} hears the same in every draw, put GaussianNoise before it"
            )
        if not seconds_at_once > 0:
            raise ValueError(f"seconds_at_once must be positive, found {seconds_at_once}")
        vote.require(recognizer)
        self.recognizer = recognizer
        self.vote = vote
        self.seconds_at_once = seconds_at_once

    @property
    def forwards_per_transcript(self) -> int:
        return self.vote.num * self.recognizer.forwards_per_transcript

    def view(self, knowledge: Knowledge) -> Recognizer:
        check_knowledge(knowledge)
        return self.recognizer.view(knowledge)

    def columns(self) -> dict[str, Any]:
        inside = self.recognizer.columns()
        name = f"{self.vote.name}-{self.vote.num}"
        return {**inside, "defense": name if inside["defense"] == "none" else f"{inside['defense']}+{name}"}

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    @torch.no_grad()
    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        if not len(waveforms):
            return []
        seeds = fresh_seeds(len(waveforms)) if seeds is None else seeds
        keyed = torch.stack([derive(seeds, step=Key.VOTE, draw=draw) for draw in range(self.vote.num)], 1)
        window = int(self.recognizer.window(lengths).max())
        at_once = max(int(self.seconds_at_once * self.sample_rate) // window, 1)
        return self.vote(self.recognizer, waveforms, lengths, keyed, at_once=at_once)
